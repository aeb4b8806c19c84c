"""One run: from a recipe to a scored, tracked, saved adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
from transformers import set_seed

from weft.core import detach, load_adapter
from weft.data.processes.atomic import whole_folder
from weft.eval.tracking import Run
from weft.train.backbones.from_scratch import save_backbone
from weft.train.backbones.loading import reader_of
from weft.train.engine.checkpoints import require_resumable, step_of
from weft.train.engine.clock import Clock
from weft.train.engine.interruption import disk_may_fill, may_be_interrupted, others_may_die
from weft.train.engine.reporting import check_reporting, reporting_callbacks
from weft.train.engine.schedule import make_mixture, total_steps
from weft.train.engine.scoring import evaluate_tasks
from weft.train.engine.session import Session
from weft.train.engine.sharding import reshard, whole_adapter
from weft.train.engine.stopping import Stop, how_to_start
from weft.train.engine.trainer import MultiTaskTrainer, training_arguments
from weft.train.errors import RunError
from weft.train.objectives import objectives_of
from weft.train.output.folders import claimed, make_run_folder, require_new, require_outside
from weft.train.output.progress import Progress
from weft.train.output.result import (
    ADAPTER,
    RESULT,
    Result,
    as_json,
    average,
    is_unscored,
    make_result,
    result_values,
    write_json,
)
from weft.train.preflight.fitness import check_device, check_fit
from weft.train.preflight.learned import left_out_of, load_learnable
from weft.train.preflight.lengths import check_lengths
from weft.train.preflight.tasks import TaskData, check_recipe, sizes_of
from weft.train.processes import Processes, join_processes
from weft.train.recipe.kept import kept_text
from weft.train.recipe.training import Recipe
from weft.train.runs.open_session import open_session
from weft.train.runs.origin import ORIGIN, check_data, origin_of, read_origin
from weft.train.runs.tracked import Report, check_tracking, track_result, tracked, tracking_folder


def execute(
    recipe: Recipe,
    *,
    tasks: Mapping[str, TaskData] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    auto_resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run a recipe.

    Everything that can be wrong with recipe, data and folder is found before the first step.

    Args:
        recipe: The recipe.
        tasks: Its records, if they are loaded already.
        resume: Resume from the newest complete checkpoint; a run that is trained and was not scored is scored.
        overwrite: Remove an earlier run of the same name first.
        auto_resume: Resume if there is a complete checkpoint; otherwise start, again if the run ended before the first.
        progress: Where to show progress; nowhere by default.

    Returns:
        Scores and counts; the folder holds `recipe.yaml`, `plan.json`, `adapter/`, `predictions/`,
        `result.json` and, with `save_model`, `model/`.

    Raises:
        InUseError: If another process writes this run.
        RunError: If the run cannot start, its disk has become full, or another of its processes is gone.
        StoppedError: If SIGTERM ended the training; there is a checkpoint of the step it fell into.
    """
    if auto_resume and (resume or overwrite):
        raise RunError(
            "`--auto-resume` must come without --resume and --overwrite, but one of them is given. It chooses "
            "between them: leave them out."
        )
    progress = progress or Progress()
    processes = join_processes()
    check_device(recipe, processes)
    check_recipe(recipe)
    tasks = tasks or load_learnable(recipe)
    check_fit(recipe, tasks, processes)
    found = [*left_out_of(tasks), *check_lengths(recipe, tasks, reader_of(recipe.backbone))]
    # Made for its complaints: batches that the processes do not divide are refused before a folder is written.
    make_mixture(recipe, sizes_of(tasks), rank=processes.rank, world_size=processes.size)
    with others_may_die(processes, recipe.folder), ExitStack() as claims:
        how = {"resume": resume, "overwrite": overwrite, "auto_resume": auto_resume}
        checkpoint = processes.decided_by_first(
            lambda: prepare_folder(recipe, lambda: origin_of(recipe, tasks), claims, **how)
        )
        for line in found:
            progress.say(line)
        with may_be_interrupted(recipe.folder), disk_may_fill(recipe.folder):
            return _run(recipe, tasks, checkpoint, progress, processes)


def _run(
    recipe: Recipe,
    tasks: Mapping[str, TaskData],
    checkpoint: Path | None,
    progress: Progress,
    processes: Processes,
) -> Result:
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)
    clock = Clock()
    session = open_session(recipe, tasks, folder=recipe.folder, processes=processes, progress=progress)
    model, plan = session.model, session.model.weft.plan
    origin = read_origin(recipe.folder) if processes.first else {}
    if processes.first:
        write_json(recipe.folder / "plan.json", plan.to_dict())
    with tracked(recipe, plan, checkpoint, origin) if processes.first else nullcontext() as run:
        if checkpoint == recipe.folder / ADAPTER:
            clock.load(recipe.folder)
            load_adapter(model, checkpoint)
        else:
            if plan.trainable_parameters:
                train_session(session, checkpoint, run, clock)
            else:
                progress.say("the method trains nothing: the model is scored as it is")
            # Before anything is scored: whatever happens then, what was trained is kept.
            state = whole_adapter(model)
            if processes.first:
                with whole_folder(recipe.folder / ADAPTER, replace=True) as partial:
                    model.save_pretrained(partial, state_dict=state)
                    clock.save(recipe.folder)
        reports = evaluate_tasks(session, "test", recipe.folder / "predictions")
        result = make_result(recipe, plan, reports, clock.seconds)
        if processes.first:
            write_json(recipe.folder / RESULT, result_values(recipe, result, origin))
            track_result(run, recipe, result, tasks, origin)
    if processes.first and recipe.save_model:
        backbone = session.backbone
        save_backbone(detach(model), backbone.words, backbone.transform, recipe.folder / "model")
    return result


def prepare_features(recipe: Recipe, tasks: Mapping[str, TaskData]) -> None:
    """Extract and keep the features of a frozen tower that a recipe needs, so that runs side by side find them."""
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)
    if reader_of(recipe.backbone).paired:  # Others are shown pictures in every batch.
        open_session(recipe, tasks)


def train_session(session: Session, checkpoint: Path | None, run: Run | None, clock: Clock) -> None:
    """Train the model of a session, in place.

    Args:
        session: The session; its recipe says how, and where checkpoints are.
        checkpoint: What to resume from, or None.
        run: Where it is tracked, or None.
        clock: Measures the run.
    """
    recipe, model, tasks = session.recipe, session.model, session.tasks
    processes, progress, section = session.processes, session.progress, session.recipe.training
    mixture = make_mixture(recipe, sizes_of(tasks), rank=processes.rank, world_size=processes.size)
    steps = total_steps(recipe, mixture)
    folder = recipe.folder / "checkpoints"
    stop = Stop(processes)
    arguments = training_arguments(section, folder, seed=recipe.seed, steps=steps, processes=processes)

    def validate() -> dict[str, float]:
        return average(evaluate_tasks(session, "validation"))

    begun = 0 if checkpoint is None else step_of(checkpoint)
    with progress.bar(f"train {recipe.title}", steps, begun) as advance:
        trainer = MultiTaskTrainer(
            model,
            arguments,
            records={name: data["train"] for name, data in tasks.items()},
            mixture=mixture,
            batches=session.batches,
            section=section,
            validate=validate if section.evaluate_every else None,
            callbacks=[
                Report(run, advance, progress.note, processes),
                stop,
                *reporting_callbacks(recipe.tracking.report_to, recipe.folder),
            ],
            processes=processes,
            objectives=objectives_of(
                model, section, section.batch_size // processes.size, session.batches.reader
            ),
            clock=clock,
        )
        if processes.rank:
            # What is drawn at random within the model must differ between processes.
            set_seed(recipe.seed + processes.rank)
        with stop.heard():
            if checkpoint is None:
                trainer.train()
            else:
                trainer.resume(checkpoint)
    trainer.task_losses.check()
    for line in trainer.dropped_lines():
        progress.say(line)
    reshard(model)
    if section.evaluate_every and (folder / "best").exists():
        # It is the model of this very run; a tower's running statistics may have moved since that step.
        load_adapter(model, folder / "best", check_weights=False)
    elif trainer.average is not None:
        trainer.average.apply()


def prepare_folder(
    recipe: Recipe,
    origin: Callable[[], Mapping[str, str]],
    claims: ExitStack,
    *,
    resume: bool = False,
    overwrite: bool = False,
    auto_resume: bool = False,
) -> Path | None:
    """Claim the folder of a run, and make it or find what to resume there.

    Args:
        recipe: The recipe.
        origin: Finds what it reads, as `origin_of` does; not asked where the run is refused for other reasons.
        claims: Keeps the folder from other processes until it is closed.
        resume: As for `execute`.
        overwrite: As for `execute`.
        auto_resume: As for `execute`.

    Returns:
        The checkpoint to resume from, or None.

    Raises:
        InUseError: If another process writes this run.
        RunError: If the run cannot start.
    """
    folder = recipe.folder
    claims.enter_context(claimed(folder, "name", otherwise="take name=... for another run"))
    if auto_resume:
        resume, overwrite = how_to_start(folder)
    if resume and overwrite:
        raise RunError(
            "`--resume` must be left out with `--overwrite`, but both are given: one resumes what the other "
            "removes. Take one of them."
        )
    values = kept_text(recipe)
    if resume:
        checkpoint = folder / ADAPTER if is_unscored(folder) else require_resumable(folder / "checkpoints")
        kept = folder / "recipe.yaml"
        if not kept.is_file() or kept.read_text(encoding="utf-8", errors="replace") != values:
            raise RunError(
                f"`--resume` needs the recipe that {folder} was started with, but it differs from "
                f"{kept}. Resume with that file, or start a run of another name."
            )
        check_data(folder, origin(), "`--resume`", ", or start a run of another name")
        check_tracking(recipe)
        return checkpoint
    require_new(folder, resumes=True, overwrite=overwrite)
    check_reporting(recipe.tracking.report_to)
    require_outside(folder, tracking_folder(recipe), "tracking.store")
    check_tracking(recipe)
    make_run_folder(folder, {"recipe.yaml": values, ORIGIN: as_json(origin())})
    return None
