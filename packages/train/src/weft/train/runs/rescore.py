"""Scoring a finished run again, from its folder alone, by one process or by several together."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from weft.train.engine.scoring import evaluate_tasks
from weft.train.output.progress import Progress
from weft.train.output.result import ADAPTER, Result, check_finished, make_result
from weft.train.preflight.tasks import load_tasks
from weft.train.processes import join_processes
from weft.train.recipe.loading import load_recipe
from weft.train.runs.open_session import open_session


def rescore(folder: Path, *, role: str = "test", progress: Progress | None = None) -> Result:
    """Load a run's adapter into a fresh backbone, predict and score.

    Processes that a launcher started share the batches of each task, and all get the scores; each holds the whole
    model, also of a run that was sharded.

    Args:
        folder: Folder of the run.
        role: `test` or `validation`.
        progress: Where to show progress.

    Returns:
        The scores; the run's own files stay as they are.

    Raises:
        RunError: If the folder is not that of a finished run.
    """
    check_finished(folder, "RUN")
    recipe = load_recipe(folder / "recipe.yaml")
    processes = join_processes()
    tasks = load_tasks(recipe, (role,))  # type: ignore[arg-type]
    started = time.perf_counter()
    session = open_session(
        recipe, tasks, folder=folder, adapter=folder / ADAPTER, processes=processes, progress=progress
    )
    reports = evaluate_tasks(session, role)
    seconds = time.perf_counter() - started
    return replace(make_result(recipe, session.model.weft.plan, reports, seconds), folder=folder)
