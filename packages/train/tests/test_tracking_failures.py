"""A tracking server that dies or never lived stops no run, and nothing that a run says is lost."""

import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from weft.eval.tracking import sync
from weft.eval.tracking.sender import Sender
from weft.eval.tracking.store import client
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.mlflow_server import MlflowServer, free_port, run_across_restart

pytest.importorskip("mlflow", reason="weft-eval brings mlflow")
STEPS = 40


def logged_steps(uri: str, experiment: str) -> list[int]:
    found = client(uri)
    (run,) = found.search_runs([found.get_experiment_by_name(experiment).experiment_id])
    assert run.info.status == "FINISHED"
    return sorted(point.step for point in found.get_metric_history(run.info.run_id, "train/loss"))


@contextmanager
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds that a run itself waits for its store: in two attempts, before and after the work, and in no step."""
    waited: list[float] = []
    drain = Sender.drain

    def timed(sender: Sender) -> bool:
        started = time.monotonic()
        try:
            return drain(sender)
        finally:
            if threading.current_thread() is threading.main_thread():
                waited.append(time.monotonic() - started)

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "drain", timed)
        yield waited


def test_a_dead_server_costs_seconds_and_its_run_can_be_sent_later(values, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dead = f"http://127.0.0.1:{free_port()}"
    tracking = ["tracking.enabled=true", "tracking.experiment=late", f"tracking.store={dead}"]
    with waits(monkeypatch) as waited:
        result = execute(load_recipe(values, [*tracking, "training.log_every=1"]))
    assert result.scores
    # A refused call of MLflow's own defaults blocks for minutes.
    assert sum(waited) < 60
    (spool,) = (path.parent for path in tmp_path.rglob("events.jsonl"))
    later = f"sqlite:///{store / 'mlflow.db'}"
    twice = tmp_path / "twice"
    shutil.copytree(spool, twice)
    sync(spool, later)
    assert logged_steps(later, "late") == [1, 2, 3, 4, 5, 6]
    once = histories(later, "late")
    # An upload that breaks off after everything was taken is made again, and doubles nothing.
    sync(twice, later)
    assert histories(later, "late") == once


def test_a_server_that_takes_calls_and_never_answers_costs_seconds(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        store = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tracking = ["tracking.enabled=true", "tracking.experiment=silent", f"tracking.store={store}"]
        with waits(monkeypatch) as waited:
            assert execute(load_recipe(values, tracking)).scores
    assert waited
    assert sum(waited) < 45
    assert list(tmp_path.rglob("events.jsonl"))


def histories(uri: str, experiment: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric of the one run, step by step; times and memory, which no two runs share, as steps alone."""
    found = client(uri)
    (run,) = found.search_runs([found.get_experiment_by_name(experiment).experiment_id])
    return {
        name: sorted(
            (point.step, 0.0 if name.startswith(("time/", "memory/", "system/")) else point.value)
            for point in found.get_metric_history(run.info.run_id, name)
        )
        for name in run.data.metrics
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
def test_a_server_killed_in_mid_run_and_started_again_has_every_step(
    values: dict[str, Any], tmp_path: Path
) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    values["training"] |= {"steps": STEPS, "log_every": 1, "save_every": 5}
    values["tracking"] = {"enabled": True, "experiment": "killed", "store": server.uri}
    try:
        run_across_restart(values, tmp_path, server)
        assert logged_steps(server.uri, "killed") == list(range(1, STEPS + 1))
        undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
        execute(load_recipe(values, ["name=undisturbed", f"tracking.store={undisturbed}"]))
        expected, found = histories(undisturbed, "killed"), histories(server.uri, "killed")
        assert len(expected["train/gradient_norm"]) == STEPS
        assert found == expected
    finally:
        server.kill()
