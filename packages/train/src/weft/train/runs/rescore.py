"""Scoring a finished run again, from its folder alone, by one process or by several together."""

from __future__ import annotations

import time
from pathlib import Path

from transformers import set_seed

from weft.core import load_adapter
from weft.train.backbones.loading import load_backbone
from weft.train.engine.scoring import evaluate_tasks, make_batches, make_visual
from weft.train.output.progress import Progress
from weft.train.output.result import Result, average, check_finished
from weft.train.preflight.tasks import load_tasks
from weft.train.processes import join_processes
from weft.train.recipe.loading import load_recipe


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
    progress = progress or Progress()
    recipe = load_recipe(folder / "recipe.yaml")
    processes = join_processes()
    tasks = load_tasks(recipe, (role,))  # type: ignore[arg-type]
    started = time.perf_counter()
    # A new architecture gets the weights it was drawn with, so that the adapter finds its backbone again.
    set_seed(recipe.seed)
    with processes.first_alone():
        backbone = load_backbone(recipe.backbone, folder=folder)
        model = load_adapter(backbone.model, folder / "adapter").to(processes.device)
    visual = make_visual(recipe, backbone, tasks, progress, processes)
    batches = make_batches(recipe, backbone, visual)
    reports = evaluate_tasks(recipe, model, tasks, batches, role, None, progress, processes)
    plan = model.weft.plan
    return Result(
        folder=folder,
        scores=average(reports),
        trainable=plan.trainable_parameters,
        total=plan.total_parameters,
        seconds=time.perf_counter() - started,
        reports={name: report.to_dict() for name, report in reports.items()},
    )
