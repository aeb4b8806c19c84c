"""Processes that use new tracking stores together, as tests start them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

from weft.eval.tracking import check_store, open_run, store_uri
from weft.eval.tracking.store import client


def assert_first_uses(stores: Sequence[str], processes: int = 4) -> None:
    """Assert that processes which use each of some new stores at once all write their runs into one experiment."""
    context = multiprocessing.get_context("spawn")
    shared = (list(stores), context.Barrier(processes), context.Queue())
    racers = [context.Process(target=_first_uses, args=shared) for _ in range(processes)]
    for racer in racers:
        racer.start()
    told = [shared[-1].get(timeout=300) for _ in racers for _ in stores]
    for racer in racers:
        racer.join()
    assert told == [""] * processes * len(stores)
    for store in stores:
        found = client(store_uri(store))
        experiment = found.get_experiment_by_name("together")
        assert len(found.search_runs([experiment.experiment_id])) == processes


def _first_uses(stores: Sequence[str], ready: Any, outcomes: Any) -> None:
    import mlflow  # noqa: F401  (loaded before the race, so that its start is one)

    for store in stores:
        ready.wait(300)
        try:
            check_store(store, "together")
            with open_run(store, "together", f"run {os.getpid()}") as run:
                run.log_metrics({"loss": 1.0})
            outcomes.put("" if run.run_id else "not sent")
        except BaseException as error:
            outcomes.put(f"{type(error).__name__}: {error}")
