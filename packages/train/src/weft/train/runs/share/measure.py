"""Measuring the tasks of a recipe: a short training with everything shared, then gradients of each task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.core import Plan, plan
from weft.data.processes.atomic import whole_file
from weft.data.sampling.mixing import TaskMixture
from weft.train.backbones.loading import planned_model
from weft.train.engine.clock import Clock
from weft.train.engine.loading import Collate
from weft.train.engine.schedule import make_mixture, total_steps
from weft.train.engine.session import Session
from weft.train.errors import RunError
from weft.train.objectives import objectives_of
from weft.train.output.folders import RUN_MARKER, claimed, make_run_folder, require_made
from weft.train.output.progress import Progress
from weft.train.output.result import ADAPTER, as_json, write_json
from weft.train.output.run_files import as_written, read_json
from weft.train.preflight.fitness import check_device, check_fit
from weft.train.preflight.learned import load_learnable
from weft.train.preflight.tasks import TaskData, check_recipe, sizes_of
from weft.train.processes import Processes, join_processes
from weft.train.recipe.training import Recipe
from weft.train.runs.open_session import open_session
from weft.train.runs.origin import differences, in_words, origin_of, settings_of
from weft.train.runs.provenance import peak_memory_mb
from weft.train.runs.share.cells import across_tasks, cells_of
from weft.train.runs.share.gradients import separate_tasks
from weft.train.runs.share.measurement import Measurement, Measuring

STATE = "measured.safetensors"
MADE_FROM = "made_from.json"
COST = "cost.json"
_ADVICE = "Start over with --overwrite."
_TRAINED, _MEASURED, _FEWEST = 0.04, 0.03, 14  # shares of a run's steps, and the fewest batches of any use


@dataclass(frozen=True)
class Measured:
    """What `weft share` measured of a recipe.

    Attributes:
        recipe: The recipe.
        planned: A plan of its method, as the recipe has it.
        measurement: The measurement.
        cost: Steps, seconds and memory.
        folder: Where it is kept.
    """

    recipe: Recipe
    planned: Plan
    measurement: Measurement
    cost: Mapping[str, float]
    folder: Path


def folder_of(recipe: Recipe) -> Path:
    """Where what is measured of a recipe is kept."""
    return recipe.folder.with_name(f"{recipe.name}.share")


Train = Callable[[Session, None, None, Clock], None]


def measure(
    recipe: Recipe,
    train: Train,
    *,
    steps: int | None = None,
    batches: int | None = None,
    looks: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """Measure the tasks of a recipe; a measurement that was interrupted resumes when it is started again.

    Args:
        recipe: The recipe, of two tasks or more.
        train: Trains the model of a session, as `weft.train.runs.run.train_session` does.
        steps: Steps that the method is trained first, shared by all tasks; by default 4 % of the recipe's.
        batches: Batches that gradients are taken on; by default as many as 3 % of its steps, and at least 14.
        looks: Batches that lookahead losses are taken on; by default a quarter of these, and at least 4.
        overwrite: Start over what was begun with another recipe, other data or other numbers.
        progress: Where to show progress.

    Raises:
        RunError: If there is one task alone, or the folder holds another measurement and `overwrite` is false.
    """
    progress, processes = progress or Progress(), join_processes()
    if len(recipe.tasks) < 2:
        raise RunError(
            f"`tasks` must be two or more to share anything, but {recipe.name!r} has {', '.join(recipe.tasks)} alone."
        )
    check_device(recipe, processes)
    check_recipe(recipe)
    tasks = load_learnable(recipe)
    check_fit(recipe, tasks, processes)
    whole = total_steps(recipe, make_mixture(recipe, sizes_of(tasks)))
    steps = max(1, round(_TRAINED * whole)) if steps is None else steps
    batches = max(_FEWEST, round(_MEASURED * whole)) if batches is None else batches
    looks = max(4, batches // 4) if looks is None else looks
    planned = plan(planned_model(recipe.backbone), recipe.method, list(recipe.tasks))
    cells_of(planned)  # for its complaints, before anything is trained
    shared = _shared_by_all(recipe, planned, steps)
    numbers = {"--steps": steps, "--batches": batches, "looks": looks}
    claim = claimed(folder_of(recipe), "name", otherwise="take name=... for another one")
    with ExitStack() as claims:
        processes.decided_by_first(lambda: claims.enter_context(claim))
        processes.decided_by_first(lambda: _prepare(recipe, shared, tasks, numbers, overwrite))
        measurement, cost = _measured(shared, tasks, train, batches, looks, progress, processes)
    return Measured(recipe, planned, measurement, {**cost, "whole_steps": whole}, shared.folder)


def _shared_by_all(recipe: Recipe, planned: Plan, steps: int) -> Recipe:
    """The recipe with its method shared by all tasks, for a short training without validation."""
    own = {
        "steps": steps,
        "epochs": None,
        "schedule": "constant",
        "evaluate_every": 0,
        "patience": 0,
        "save_every": 0,
        "average": 0.0,
        "sharded": False,
        "balance": None,
    }
    training, method = recipe.training.model_copy(update=own), across_tasks(planned, shared=True)
    return recipe.model_copy(
        update={"name": folder_of(recipe).name, "method": method, "training": training, "save_model": False}
    )


def _prepare(
    recipe: Recipe,
    shared: Recipe,
    tasks: Mapping[str, TaskData],
    numbers: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Make the folder, or find that what is there was begun with the same."""
    folder = shared.folder
    made_from = {**settings_of(recipe), **origin_of(recipe, tasks), **numbers}
    if (folder / MADE_FROM).is_file():
        kept = read_json(folder / MADE_FROM)
        differing = differences(kept, json.loads(as_json(made_from)))
        if not differing:
            return
        if not overwrite:
            raise RunError(
                f"A measurement must resume with what it was begun with, but in {folder} {in_words(differing)}. Take "
                "name=... for another one, or --overwrite to start this one over."
            )
    require_made(folder, RUN_MARKER, "name")
    make_run_folder(folder, {MADE_FROM: as_json(made_from)})


def _measured(
    shared: Recipe,
    tasks: Mapping[str, TaskData],
    train: Train,
    batches: int,
    looks: int,
    progress: Progress,
    processes: Processes,
) -> tuple[Measurement, dict[str, float]]:
    if shared.training.threads is not None:
        torch.set_num_threads(shared.training.threads)
    folder = shared.folder
    trained = folder / ADAPTER
    adapter = trained if trained.is_dir() else None
    session = open_session(
        shared, tasks, folder=folder, adapter=adapter, processes=processes, progress=progress
    )
    cost: dict[str, float] = {}
    if adapter is None:
        clock = Clock()
        train(session, None, None, clock)
        cost = {"train_steps": float(shared.training.steps or 0), "train_seconds": clock.seconds}
        cost["train_memory_mb"] = _memory(processes)
        if processes.first:
            session.model.save_pretrained(trained)
            write_json(folder / COST, cost)
        processes.wait()
    elif (folder / COST).is_file():  # or it was killed before this was written
        with as_written(folder / COST, _ADVICE):
            cost = {key: float(value) for key, value in read_json(folder / COST).items()}
    separate_tasks(session.model)
    measuring = _measuring(session, batches, looks)
    state = folder / f"{processes.rank}-of-{processes.size}-{STATE}"
    if state.is_file():
        with as_written(state, _ADVICE):
            measuring.load(load_file(state))
    started, done = time.perf_counter(), measuring.done
    with progress.bar(f"measure {shared.name}", measuring.total, measuring.done) as advance:
        measuring.run(_keeping(measuring, state, advance))
    if measuring.done > done or "measure_seconds" not in cost:  # or it was killed before this was written
        cost["measure_seconds"] = cost.get("measure_seconds", 0.0) + time.perf_counter() - started
        cost["measure_memory_mb"] = _memory(processes)
        if processes.first:
            write_json(folder / COST, cost)
    return measuring.measured(), cost


def _keeping(measuring: Measuring, path: Path, advance: Callable[[int], None]) -> Callable[[int], None]:
    """Write down what was measured, every so often and at the end."""
    every = max(1, measuring.total // 4)

    def after(done: int) -> None:
        advance(done)
        if done % every == 0 or done == measuring.total:
            with whole_file(path) as partial:
                save_file({key: value.contiguous() for key, value in measuring.state().items()}, partial)

    return after


def _measuring(session: Session, batches: int, looks: int) -> Measuring:
    model, section = session.model, session.recipe.training
    rows = max(2, section.batch_size // len(session.recipe.tasks))
    return Measuring(
        model,
        cells_of(model.weft.plan),
        Draw(session, rows),
        Losses(session, objectives_of(model, section, rows, session.batches.reader)),
        batches=batches,
        looks=looks,
        rate=section.learning_rate,
        processes=session.processes,
    )


class Draw:
    """Batches with as many rows of each task, independent of those that were trained on but for the records drawn.

    Args:
        session: The session.
        rows: Rows of each task.
    """

    def __init__(self, session: Session, rows: int) -> None:
        self.session = session
        sizes = sizes_of(session.tasks)
        self.mixture = TaskMixture(
            sizes,
            strategy="round_robin",
            batch_size={task: min(rows, size) for task, size in sizes.items()},
            seed=session.recipe.seed + 1,
        )
        self.collate = Collate(session.batches)

    def __call__(self, number: int) -> Sequence[Any]:
        """The inputs of a batch: one for rows of all tasks, or one for each task where batches hold one."""
        count = len(self.mixture.tasks)
        pieces = []
        for turn in range(number * count, (number + 1) * count):
            epoch, step = divmod(turn, len(self.mixture))
            keys = self.mixture.global_batch(step, epoch)
            rows = [(task, self.session.tasks[task]["train"][row], epoch, len(keys)) for task, row in keys]
            pieces.append(rows)
        if self.session.recipe.training.mixing.unit == "mixed":
            pieces = [[row for rows in pieces for row in rows]]
        return [self.collate(rows) for rows in pieces]


class Losses:
    """The losses of rows, as training computes them, and the tasks of the rows.

    Args:
        session: The session.
        objectives: What the batches are trained by, by its name.
    """

    def __init__(self, session: Session, objectives: Mapping[str, Any]) -> None:
        self.session, self.objectives = session, objectives

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Tensor, Sequence[str]]:
        """One loss for each row, shape `(rows,)`, and each row's task."""
        if "failed" in batch:
            raise batch["failed"]
        beside = ("tasks", "records", "rows", "epoch", "objective", "left_out")
        model = self.session.model
        inputs = {key: value for key, value in batch.items() if key not in beside}
        with model.route(tasks=batch["batch"].routes):
            losses = self.objectives[batch["objective"]](model, inputs)
        return losses, batch["tasks"]


def _memory(processes: Processes) -> float:
    """Peak memory so far in MiB: of the GPU where there is one, otherwise of the process."""
    if processes.device.type == "cuda":
        return torch.cuda.max_memory_allocated(processes.device) / 2**20
    return peak_memory_mb()
