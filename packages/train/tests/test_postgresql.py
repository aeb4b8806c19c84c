"""A tracking store in PostgreSQL, on a cluster of its own: first used by four, written to, killed, compared."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.eval.testing.first_uses import assert_first_uses
from weft.eval.tracking import sync
from weft.eval.tracking.store import client
from weft.train.cli import main
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.mlflow_server import MlflowServer, run_across_restart

pytest.importorskip("mlflow", reason="weft-eval brings mlflow")
pytest.importorskip("psycopg", reason="needs the driver: pip install 'psycopg[binary]'")
pytestmark = pytest.mark.slow
PASSWORD = "geheim"


def binaries() -> Path:
    """The folder of PostgreSQL's programs, or skip."""
    found = [Path(place).resolve().parent for place in [shutil.which("initdb")] if place]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in found:
        if all((folder / name).is_file() for name in ("initdb", "postgres")):
            return folder
    pytest.skip("needs the programs of PostgreSQL's server (Debian: postgresql)")


class Cluster:
    """A server on loopback with a folder of its own; it refuses root, and runs as another user where root asks."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.folder = binaries(), folder
        self.options: dict[str, Any] = {
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
            "cwd": folder,
        }
        if os.getuid() == 0:
            other = pwd.getpwnam("nobody")
            os.chown(folder, other.pw_uid, other.pw_gid)
            self.options |= {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        words = [
            "--username",
            "weft",
            "--auth",
            "scram-sha-256",
            "--pwfile",
            str(folder / "password"),
            "--no-sync",
        ]
        subprocess.run([self.bin / "initdb", "-D", folder / "data", *words], check=True, **self.options)
        self.process: subprocess.Popen[bytes] | None = None

    def uri(self, database: str) -> str:
        """Address of a database, as a user would write it."""
        return f"postgresql://weft:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ["-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder]
        words += ["-c", "fsync=off"]  # the machine stays up, and migrations take a hundred writes
        words += ["-c", "max_connections=500"]  # a process keeps those to each of the stores that it has used
        self.process = subprocess.Popen([self.bin / "postgres", *words], **self.options)
        end = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it takes connections."""
        import psycopg

        try:
            psycopg.connect(self.uri("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """Kill it; its children see that at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def create(self, database: str) -> str:
        """Make a database and return its address."""
        import psycopg

        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.uri(database)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="weft-postgresql-"))  # other users do not get into pytest's folder
    try:
        made = Cluster(folder)
        made.start()
        yield made
        made.kill()
    finally:
        shutil.rmtree(folder)


def test_four_processes_make_a_store_once_every_time(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_first_uses([cluster.create(f"race{number}") for number in range(20)])


def test_a_server_killed_in_mid_run_and_started_again_has_every_step_and_is_compared(
    cluster: Cluster,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = cluster.create("killed")
    values["training"] |= {"steps": 40, "log_every": 1, "save_every": 5}
    values["tracking"] = {"enabled": True, "experiment": "killed", "store": uri, "model": False}
    said = run_across_restart(values, tmp_path, cluster, uri)
    found = client(uri)
    (kept,) = found.search_runs([found.get_experiment_by_name("killed").experiment_id])
    steps = [point.step for point in found.get_metric_history(kept.info.run_id, "train/loss")]
    assert (kept.info.status, sorted(steps)) == ("FINISHED", list(range(1, 41)))
    execute(load_recipe(values, ["name=other", "seed=1", "training.steps=2"]))
    with pytest.raises(SystemExit) as ended:
        main(["compare", "killed", "--store", uri])
    shown = capsys.readouterr()
    assert int(ended.value.code or 0) == 0
    assert "tiny" in shown.out
    assert "other" in shown.out
    assert PASSWORD not in said + shown.out + shown.err
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file != tmp_path / "recipe.yaml"]
    assert [str(file) for file in written if PASSWORD.encode() in file.read_bytes()] == []


def test_an_mlflow_server_over_it_takes_two_runs_at_once_though_it_is_killed_and_started_again(
    cluster: Cluster,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = cluster.create("behind").replace("postgresql://", "postgresql+psycopg://")
    server = MlflowServer(tmp_path / "server", backend)
    server.start()
    values["training"] |= {"steps": 30, "log_every": 1, "save_every": 5}
    values["tracking"] = {"enabled": True, "experiment": "behind", "store": server.uri}
    path, names = tmp_path / "recipe.yaml", ("one", "two")
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "weft.train", str(path), f"name={name}", f"label={name}", f"seed={seed}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed, name in enumerate(names)
    ]
    checkpoints = [Path(values["output"]) / name / "checkpoints" for name in names]

    def reached(step: int) -> bool:
        pairs = zip(runs, checkpoints, strict=True)
        return all(run.poll() is not None or (own / f"checkpoint-{step}").exists() for run, own in pairs)

    try:
        while not reached(5):
            time.sleep(0.05)
        server.kill()
        killed_at = [run.poll() for run in runs]
        while not reached(15):
            time.sleep(0.05)
        server.start()
        said = [run.communicate()[0] for run in runs]
        assert killed_at == [None, None], "the server was killed too late to test anything"
        assert [run.returncode for run in runs] == [0, 0], said
        for spool in {events.parent for events in tmp_path.rglob("events.jsonl")}:
            sync(spool)
        found = client(server.uri)
        kept = found.search_runs([found.get_experiment_by_name("behind").experiment_id])
        assert sorted(run.info.run_name for run in kept) == [*names]
        for run in kept:
            steps = [point.step for point in found.get_metric_history(run.info.run_id, "train/loss")]
            assert (run.info.status, sorted(steps)) == ("FINISHED", list(range(1, 31)))
            assert "recipe.yaml" in [file.path for file in found.list_artifacts(run.info.run_id)]
        with pytest.raises(SystemExit) as ended:
            main(["compare", "behind", "--store", server.uri])
        shown = capsys.readouterr()
        assert int(ended.value.code or 0) == 0, shown.err
        assert all(name in shown.out for name in names)
    finally:
        server.kill()
        for run in runs:
            run.kill()


def test_a_server_that_does_not_answer_is_said_without_the_password(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in (cluster.uri("nowhere"), cluster.uri("postgres").replace(PASSWORD, "wrong-geheim")):
        with pytest.raises(SystemExit) as ended:
            main(["compare", "x", "--store", uri])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "must open, but does not" in said
        assert PASSWORD not in said
