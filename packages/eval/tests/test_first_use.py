"""Processes that use a new tracking store together make it once, and none of them dies."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from weft.eval.tracking import check_store, open_run, store_uri
from weft.eval.tracking.store import client

PROCESSES = 4


def _first_use(store: str, ready: Any, outcomes: Any) -> None:
    import mlflow  # noqa: F401  (loaded before the race, so that its start is one)

    ready.wait()
    try:
        check_store(store, "together")
        with open_run(store, "together", f"run {os.getpid()}") as run:
            run.log_metrics({"loss": 1.0})
        outcomes.put("" if run.run_id else "not sent")
    except BaseException as error:
        outcomes.put(f"{type(error).__name__}: {error}")


def race(store: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, outcomes = context.Barrier(PROCESSES), context.Queue()
    racers = [
        context.Process(target=_first_use, args=(str(store), ready, outcomes)) for _ in range(PROCESSES)
    ]
    for racer in racers:
        racer.start()
    told = [outcomes.get(timeout=300) for _ in racers]
    for racer in racers:
        racer.join()
    assert told == [""] * PROCESSES
    found = client(store_uri(store))
    experiment = found.get_experiment_by_name("together")
    assert len(found.search_runs([experiment.experiment_id])) == PROCESSES
    assert not list(store.glob(".*.lock"))


def test_four_processes_make_a_store_once(tmp_path: Path) -> None:
    race(tmp_path / "new")


@pytest.mark.slow
def test_four_processes_make_a_store_once_every_time(tmp_path: Path) -> None:
    for number in range(20):
        race(tmp_path / f"new-{number}")


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="needs a folder that cannot be written")
def test_a_store_that_can_only_be_read_is_read(store: Path) -> None:
    (store).chmod(0o555)
    try:
        assert client(store_uri(store)).search_experiments()
    finally:
        store.chmod(0o755)
        shutil.rmtree(store)
