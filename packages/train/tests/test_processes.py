"""Two processes under torchrun give what one process gives: replicated or sharded, killed, on two nodes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from weft.core.testing.processed import tiny
from weft.data import MediaRef, Retrieval
from weft.train.backbones.loading import reader_of
from weft.train.engine.interruption import others_may_die
from weft.train.engine.sharding import check_shardable
from weft.train.errors import RecipeError, RunError
from weft.train.preflight.fitness import check_objectives
from weft.train.preflight.tasks import TaskData, load_tasks
from weft.train.processes import ONE, Processes, join_processes
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.sections import BackboneSection
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights, assert_same_curve, assert_same_weights

needs_gloo = pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENVIRONMENT = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
STEPS = 20
LOST = 60  # Seconds until a run ends that has lost a process, as the documentation says.
SHARDED = """
from torch.distributed.tensor import DTensor
from weft.train.engine import trainer as engine
from weft.train.cli import main

shard = engine.shard


def checked(model, processes):
    shard(model, processes)
    shared = [isinstance(value, DTensor) for value in model.parameters() if value.dim()]
    assert shared and all(shared), "every parameter must be a DTensor"


engine.shard = checked
main()
"""


def run(recipe: Path, *words: str, processes: int = 1, script: Path | None = None) -> None:
    program = ["-m", "weft.train"] if script is None else [str(script)]
    launcher = (
        [*TORCHRUN, "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else [sys.executable]
    )
    command = [*launcher, *program, *(["train"] if script is not None else []), str(recipe), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture
def recipe(values: dict[str, Any], tmp_path: Path) -> Path:
    values["training"] |= {"steps": STEPS, "save_every": 10, "log_every": 1, "learning_rate": 1e-3}
    # Twelve records of each task make three batches, which two processes share unevenly.
    values["training"] |= {"evaluate_every": 10}
    values["evaluation"] = {"batch_size": 5}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@needs_gloo
@pytest.mark.slow
def test_two_processes_follow_the_losses_and_scores_of_one(recipe: Path, values: dict[str, Any]) -> None:
    output = Path(values["output"])
    run(recipe, "name=one")
    run(recipe, "name=two", processes=2)
    assert_same_curve(output / "one", output / "two", STEPS)
    scores = [json.loads((output / name / "result.json").read_text()) for name in ("one", "two")]
    assert scores[0]["scores"] == scores[1]["scores"]
    for name, report in scores[1]["reports"].items():
        assert report["n"] == scores[0]["reports"][name]["n"]
        predictions = [
            json.loads((output / run / "predictions" / f"{name}.json").read_text()) for run in ("one", "two")
        ]
        assert predictions[0] == predictions[1]


@needs_gloo
@pytest.mark.slow
def test_two_processes_train_on_what_units_add_to_the_loss(recipe: Path, values: dict[str, Any]) -> None:
    values["method"] = {"method": "hydra_lora", "rank": 2, "sharing": "multiple"}
    values["training"] |= {"steps": 2, "save_every": 2, "evaluate_every": 2}
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    routers = []
    for name, balance in (("plain", 0), ("balanced", 10)):
        run(recipe, f"name={name}", f"method.balance={balance}", processes=2)
        adapter = adapter_weights(Path(values["output"]) / name)
        routers.append({key: value for key, value in adapter.items() if ".router." in key})
    assert routers[0]
    assert any(not torch.equal(value, routers[1][key]) for key, value in routers[0].items())


@needs_gloo
@pytest.mark.slow
def test_what_the_first_process_refuses_is_all_that_the_others_say(
    recipe: Path, values: dict[str, Any]
) -> None:
    (Path(values["output"]) / "taken").mkdir(parents=True)
    command = [
        *TORCHRUN,
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "weft.train",
        str(recipe),
        "name=taken",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode != 0
    assert "weft: `name` must be new" in done.stderr
    assert "[rank1]" not in done.stderr, "torch puts that before the trace of a defect"


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(
    recipe: Path, values: dict[str, Any], before: int, after: int
) -> None:
    output = Path(values["output"])
    run(recipe, "name=whole")
    run(recipe, "name=changed", processes=before)
    for path in ("checkpoint-20", "best"):
        (output / "changed" / "checkpoints" / path / "manifest.json").unlink()
    run(recipe, "name=changed", "--resume", processes=after)
    assert_same_curve(output / "whole", output / "changed", STEPS)
    assert_same_weights(output / "whole", output / "changed")


@needs_gloo
@pytest.mark.slow
def test_sharded_processes_follow_one_and_resume_in_any_form(
    recipe: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    output = Path(values["output"])
    script = tmp_path / "checked.py"
    script.write_text(SHARDED)
    more = ["training.average=0.9"]
    run(recipe, "name=one", *more)
    sharded = ["name=sharded", "training.sharded=true", *more]
    run(recipe, *sharded, processes=2, script=script)
    assert_same_curve(output / "one", output / "sharded", STEPS)
    assert_same_weights(output / "one", output / "sharded")
    scores = [json.loads((output / name / "result.json").read_text()) for name in ("one", "sharded")]
    assert scores[0]["scores"] == scores[1]["scores"]
    for processes in (2, 1):
        (output / "sharded" / "checkpoints" / "checkpoint-20" / "manifest.json").unlink()
        run(recipe, *sharded, "--resume", processes=processes)
        assert_same_curve(output / "one", output / "sharded", STEPS)
        assert_same_weights(output / "one", output / "sharded")


@needs_gloo
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_a_lost_rank_ends_the_run_which_resumes_to_the_same_curve(
    recipe: Path, values: dict[str, Any]
) -> None:
    output = Path(values["output"])
    run(recipe, "name=one")
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "weft.train", str(recipe)]
    said = output.parent / "said.txt"
    with said.open("w") as stream:
        launched = subprocess.Popen(
            [*command, "name=lost"], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=stream
        )
    checkpoint = output / "lost" / "checkpoints" / "checkpoint-10"
    while launched.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    ranks = [
        int(pid) for pid in Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    ]
    assert len(ranks) == 2, "the run ended before a rank could be lost"
    os.kill(ranks[1], signal.SIGKILL)
    assert launched.wait(timeout=LOST) != 0
    # The launcher may end the other one before it has spoken.
    words = said.read_text()
    assert "[rank0]" not in words, "a trace instead of a message"
    assert "process 0 has lost another one" in words or "local_rank: 0)\n  exitcode  : -15" in words
    assert not (output / "lost" / "result.json").exists(), "the kill came too late to test anything"
    run(recipe, "name=lost", "--resume", processes=2)
    assert_same_curve(output / "one", output / "lost", STEPS)
    assert_same_weights(output / "one", output / "lost")


@dataclass(frozen=True)
class Node:
    """A machine, or what stands for one: where its processes run and where others find it."""

    address: str
    interface: str = "lo"
    enter: tuple[str, ...] = ()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


@pytest.fixture(params=["addresses", "namespaces"])
def nodes(request: pytest.FixtureRequest) -> Iterator[list[Node]]:
    """Two machines: two addresses of this one, or two network namespaces with a cable between them."""
    if sys.platform != "linux":
        pytest.skip("two addresses of the loopback, and network namespaces, take Linux")
    if request.param == "addresses":
        yield [Node("127.0.0.1"), Node("127.0.0.2")]
        return
    names = [f"weft-{os.getpid()}-{side}" for side in "ab"]
    ends = [f"weft{os.getpid() % 10_000_000}{side}" for side in "ab"]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip(
            "link",
            "add",
            ends[0],
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            names[1],
        )
        for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            ip("-n", name, "address", "add", f"10.251.7.{number}/24", "dev", end)
            for device in (end, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield [
            Node(f"10.251.7.{number}", end, ("ip", "netns", "exec", name))
            for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1)
        ]
    except FileNotFoundError:
        pytest.skip("network namespaces take the program `ip` of iproute2")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine lets nobody make network namespaces: {error.stderr.strip()}")
    finally:
        for name in made:
            ip("netns", "delete", name)


@needs_gloo
@pytest.mark.slow
def test_two_nodes_follow_one_process(recipe: Path, values: dict[str, Any], nodes: list[Node]) -> None:
    output = Path(values["output"])
    run(recipe, "name=one")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting, started = f"{nodes[0].address}:{port}", []
    for rank, node in enumerate(nodes):
        words = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
        words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--local-addr", node.address]
        # A machine finds out by its own name whether it is the first, and both stand-ins have one name.
        words += ["--rdzv-conf", f"is_host={'false' if rank else 'true'}"]
        command = [*node.enter, *TORCHRUN, *words, "-m", "weft.train", str(recipe), "name=nodes"]
        environment = ENVIRONMENT | {"GLOO_SOCKET_IFNAME": node.interface}
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for launcher in started:
        _, errors = launcher.communicate()
        assert launcher.returncode == 0, errors[-4000:]
    assert_same_curve(output / "one", output / "nodes", STEPS)
    assert_same_weights(output / "one", output / "nodes")


def test_a_launcher_that_shards_is_refused_with_the_reason(values, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RunError, match=r"must not ask for FSDP.*Accelerate ignores FSDP on CPUs"):
        execute(load_recipe(values))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(RunError, match="must not ask for DeepSpeed"):
        join_processes()


def test_sharding_is_refused_where_it_cannot_be(values):
    with pytest.raises(RecipeError, match="`sharded` must be false with `compile`"):
        load_recipe(values, ["training.sharded=true", "training.compile=inductor"])
    with pytest.raises(RecipeError, match=r"training\.sharded: this must be false with `save_model`"):
        execute(load_recipe(values, ["training.sharded=true", "save_model=true"]))
    with pytest.raises(RunError, match=r"must be false for the objective 'contrastive'.*keeps a whole copy"):
        check_shardable(None, {"generation": len, "contrastive": torch.nn.Linear(1, 1)})


@needs_gloo
def test_a_port_in_use_is_named_before_anything_is_written(recipe: Path, values: dict[str, Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        meeting = {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        command = [sys.executable, "-m", "weft.train", str(recipe)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=ENVIRONMENT | meeting, timeout=120, check=False
        )
    assert done.returncode == 2, done.stderr
    assert f"must be able to meet at MASTER_ADDR:MASTER_PORT (127.0.0.1:{port})" in done.stderr
    assert not Path(values["output"]).exists()


def test_one_process_needs_no_launcher():
    alone = join_processes()
    assert (alone.rank, alone.size, alone.first) == (0, 1, True)
    with alone.first_alone():
        alone.wait()
    assert alone.from_first("x") == "x"


def test_objectives_that_compare_rows_stay_in_one_process(values, tmp_path):
    media = MediaRef.from_bytes(b"")
    pairs = {
        "find": TaskData({"train": [Retrieval(id="1", media=media, media_id="1", text="a", text_id="1")]})
    }
    two = Processes(0, 2, torch.device("cpu"))
    compares = reader_of(BackboneSection(name=str(tiny("clip").save(tmp_path / "clip"))))
    with pytest.raises(RunError, match="Task 'find' must be trained by one process, but there are 2"):
        check_objectives(pairs, two, compares)
    check_objectives(pairs, ONE, compares)
    recipe = load_recipe(values)
    check_objectives(load_tasks(recipe, ("train",)), two, reader_of(recipe.backbone))


def test_a_broken_connection_says_which_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    two = Processes(1, 2, torch.device("cpu"))
    broken = RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer.")
    said = r"process 1 has lost another one: .* --overwrite starts again"
    with pytest.raises(RunError, match=said), others_may_die(two, tmp_path):
        raise broken
    with pytest.raises(RuntimeError, match="Read error"), others_may_die(ONE, tmp_path):
        raise broken
    with pytest.raises(RuntimeError, match="a defect"), others_may_die(two, tmp_path):
        raise RuntimeError("a defect")
