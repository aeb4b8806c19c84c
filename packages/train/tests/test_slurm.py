"""The batch script of the docs, as printed there, on a SLURM cluster of two machines that the test starts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.curves import assert_same_curve, assert_same_weights

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="SLURM runs on Linux")]

DOCS = Path(__file__).parents[3] / "docs" / "scaling.md"
STEPS = 20
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "ip", "nsenter", "unshare")
NODES = tuple(f"weft{os.getpid()}n{number}" for number in (1, 2))
CONFIGURATION = """
ClusterName=weft
SlurmctldHost={nodes[0]}(10.251.8.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={spool}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
GresTypes=gpu
NodeName={nodes[0]} NodeAddr=10.251.8.1 Gres=gpu:1
NodeName={nodes[1]} NodeAddr=10.251.8.2 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES
"""
# A machine of its own, as far as its network, its name and the names it knows go.
ENTER = 'mount --bind "$0/hosts" /etc/hosts && hostname "$1" && shift && exec "$@"'


@dataclass
class Cluster:
    """Two machines with SLURM's daemons on them."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def on(self, node: str, *words: str) -> list[str]:
        """The command that runs another one on a machine."""
        enter = ["nsenter", f"--net=/run/netns/{node}", "unshare", "--uts", "--mount", "sh", "-c", ENTER]
        return [*enter, str(self.folder), node, *words]

    def start(self, name: str, words: list[str]) -> None:
        """Start a daemon, whose words go into a log of its own."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.daemons[name] = subprocess.Popen(words, stdout=log, stderr=log, env=self.environment)

    def ask(self, *words: str) -> str:
        """What a command of SLURM answers on the first machine."""
        done = subprocess.run(
            self.on(NODES[0], *words),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.ask("scontrol", "show", "job", number)))

    def idle(self) -> bool:
        """Whether both machines wait for work."""
        return self.ask("sinfo", "--noheader", "--format=%T %D") == "idle 2"

    def logs(self) -> str:
        """The last words of every daemon."""
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in self.folder.glob("*.log"))

    @property
    def environment(self) -> dict[str, str]:
        # A job gets the environment of `sbatch`, and finds torchrun beside the Python of the test.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        more = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path, "OMP_NUM_THREADS": "1"}
        return os.environ | more


def run(*words: str) -> None:
    subprocess.run(words, capture_output=True, text=True, check=True)


@pytest.fixture
def short() -> Iterator[str]:
    """A folder with a short name: SLURM makes sockets in it, whose whole path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="weft", dir="/tmp") as folder:
        yield folder


@pytest.fixture
def cluster(tmp_path: Path, short: str) -> Iterator[Cluster]:
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        pytest.skip(
            f"a cluster takes slurm-wlm, munge, iproute2 and util-linux: {', '.join(absent)} not found"
        )
    if os.geteuid() != 0:
        pytest.skip("a cluster of network namespaces takes root")
    made = Cluster(tmp_path / "cluster")
    folder, started = made.folder, []
    (folder / "state").mkdir(parents=True)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, spool=short, nodes=NODES))
    # A file that stands for a GPU each; the runs are on the CPU.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n10.251.8.1 {NODES[0]}\n10.251.8.2 {NODES[1]}\n")
    (folder / "key").write_bytes(os.urandom(64))
    (folder / "key").chmod(0o600)
    try:
        for node in NODES:
            try:
                run("ip", "netns", "add", node)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"this machine lets nobody make network namespaces: {error.stderr.strip()}")
            started.append(node)
        run(*f"ip link add cable netns {NODES[0]} type veth peer name cable netns {NODES[1]}".split())
        for number, node in enumerate(NODES, start=1):
            run("ip", "-n", node, "address", "add", f"10.251.8.{number}/24", "dev", "cable")
            for device in ("cable", "lo"):
                run("ip", "-n", node, "link", "set", device, "up")
        files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "seed"}
        words = [f"--{name}={folder / file}" for name, file in files.items()]
        made.start("munged", ["munged", "--foreground", "--force", f"--log-file={folder}/munged.txt", *words])
        wait_for(lambda: (folder / "munge.socket").exists(), made)
        made.start("slurmctld", made.on(NODES[0], "slurmctld", "-D"))
        for node in NODES:
            made.start(node, made.on(node, "slurmd", "-D", "-N", node))
        wait_for(made.idle, made)
        yield made
    finally:
        if len(started) == len(NODES) and "slurmctld" in made.daemons:
            made.ask("scancel", "--user=root")
            wait_for(lambda: not made.ask("squeue", "--noheader"), made, 60)
        # Munge last: without it, the others do not get rid of what they have to say.
        for daemon in reversed(made.daemons.values()):
            daemon.terminate()
            daemon.wait(timeout=60)
        for node in started:
            run("ip", "netns", "delete", node)


def wait_for(happened: Callable[[], bool], cluster: Cluster, seconds: float = 300) -> None:
    """Wait until something has happened, or fail with what the daemons and jobs say."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            jobs = "\n".join(out.read_text()[-4000:] for out in cluster.folder.parent.glob("slurm-*.out"))
            raise AssertionError(f"it did not happen in {seconds} s\n{cluster.logs()}\n{jobs}")
        time.sleep(0.1)


def script_of_the_docs() -> str:
    found = re.search(r'```bash title="weft.sbatch"\n(.*?)```', DOCS.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def submitted(cluster: Cluster, values: dict[str, Any], tmp_path: Path) -> str:
    """The number of a job that the script of the docs is, beside a run of one process named `one`."""
    values["training"] |= {"steps": STEPS, "save_every": 10, "log_every": 1, "learning_rate": 1e-3}
    (tmp_path / "my_recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    execute(load_recipe(values, ["name=one"]))
    (tmp_path / "weft.sbatch").write_text(script_of_the_docs())
    options = ["--chdir", str(tmp_path), "--gpus-per-node=1", "--cpus-per-task=1"]
    return cluster.ask("sbatch", "--parsable", *options, str(tmp_path / "weft.sbatch"))


def finish(cluster: Cluster, number: str) -> None:
    wait_for(lambda: cluster.job(number)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), cluster)
    out = (cluster.folder.parent / f"slurm-{number}.out").read_text()
    assert cluster.job(number)["JobState"] == "COMPLETED", out[-4000:]


def newest(run: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in run.glob("checkpoints/checkpoint-*")), default=0)


def test_a_job_put_back_into_the_queue_goes_on(
    cluster: Cluster, submitted: str, values: dict[str, Any]
) -> None:
    one, tiny = (Path(values["output"]) / name for name in ("one", "tiny"))
    wait_for(lambda: newest(tiny) >= 10, cluster)
    cluster.ask("scontrol", "requeue", submitted)
    wait_for(lambda: cluster.job(submitted)["JobState"] == "PENDING", cluster)
    assert 10 < newest(tiny) < STEPS, "SIGTERM must leave a checkpoint of the step it fell into"
    # SLURM lets a job wait for two minutes before it starts again.
    cluster.ask("scontrol", "update", f"JobId={submitted}", "StartTime=now")
    finish(cluster, submitted)
    assert cluster.job(submitted)["Restarts"] == "1"
    assert_same_curve(one, tiny, STEPS)
    assert_same_weights(one, tiny)
    assert json.loads((tiny / "result.json").read_text())["scores"]


def test_a_job_that_lost_a_machine_goes_on_when_it_is_back(
    cluster: Cluster, submitted: str, values: dict[str, Any]
) -> None:
    one, tiny = (Path(values["output"]) / name for name in ("one", "tiny"))
    wait_for(lambda: newest(tiny) >= 10, cluster)
    lost = subprocess.run(["ip", "netns", "pids", NODES[1]], capture_output=True, text=True, check=True)
    for process in map(int, lost.stdout.split()):
        os.kill(process, signal.SIGKILL)
    cluster.daemons.pop(NODES[1]).wait()
    wait_for(lambda: cluster.job(submitted)["JobState"] == "PENDING", cluster)
    assert newest(tiny) == 10, "the machine was lost too late to test anything"
    cluster.start(NODES[1], cluster.on(NODES[1], "slurmd", "-D", "-N", NODES[1]))
    wait_for(cluster.idle, cluster)
    cluster.ask("scontrol", "update", f"JobId={submitted}", "StartTime=now")
    finish(cluster, submitted)
    assert_same_curve(one, tiny, STEPS)
    assert_same_weights(one, tiny)
