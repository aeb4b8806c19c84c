"""One run: from a recipe to a scored, tracked, saved adapter."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import set_seed

from weft.core import attach, detach, load_adapter
from weft.data.media.shift import RandomShift
from weft.data.mixing import TaskMixture
from weft.eval.evaluate.inputs import Batches
from weft.eval.tracking import Run
from weft.train.backbones import load_backbone
from weft.train.checkpoints import require_resumable
from weft.train.engine import MultiTaskTrainer, training_arguments
from weft.train.errors import RunError
from weft.train.fitness import check_fit
from weft.train.from_scratch import save_backbone
from weft.train.progress import Progress
from weft.train.recipe import Recipe
from weft.train.result import RESULT, Result, average, make_result, result_values, write_json
from weft.train.scoring import evaluate_tasks, make_visual, text_rules
from weft.train.task_data import TaskData, check_recipe, load_tasks, training_texts
from weft.train.tracked import Report, track_result, tracked


def execute(
    recipe: Recipe,
    *,
    tasks: Mapping[str, TaskData] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run a recipe.

    Everything that can be wrong with recipe, data and folder is found before the first step.

    Args:
        recipe: The recipe.
        tasks: Its records, if they are loaded already.
        resume: Go on from the newest whole checkpoint.
        overwrite: Remove an earlier run of the same name first.
        progress: Where to show progress; nowhere by default.

    Returns:
        Scores and counts; the folder holds `recipe.yaml`, `plan.json`, `adapter/`, `predictions/`,
        `result.json` and, with `save_model`, `model/`.

    Raises:
        RunError: If the run cannot start.
    """
    progress = progress or Progress()
    check_recipe(recipe)
    tasks = tasks or load_tasks(recipe)
    check_fit(recipe, tasks)
    checkpoint = _prepare_folder(recipe, resume, overwrite)
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)
    started = time.perf_counter()
    set_seed(recipe.seed)
    backbone = load_backbone(
        recipe.backbone, folder=recipe.folder, texts=lambda: training_texts(recipe, tasks)
    )
    model = attach(backbone.model, recipe.method, list(recipe.tasks))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    batches = Batches(
        backbone.tokenizer,
        make_visual(recipe, backbone, tasks, progress),
        {name: text_rules(task) for name, task in recipe.tasks.items()},
        seed=recipe.seed,
        shift=RandomShift(recipe.training.shift) if recipe.training.shift else None,
    )
    plan = model.weft.plan
    write_json(recipe.folder / "plan.json", plan.to_dict())
    with tracked(recipe, plan, checkpoint) as run:
        _train(recipe, model, tasks, batches, checkpoint, run, progress)
        model.save_pretrained(recipe.folder / "adapter")
        reports = evaluate_tasks(
            recipe, model, tasks, batches, "test", recipe.folder / "predictions", progress
        )
        result = make_result(recipe, plan, reports, time.perf_counter() - started)
        write_json(recipe.folder / RESULT, result_values(recipe, result))
        track_result(run, recipe, result, tasks)
    if recipe.save_model:
        save_backbone(detach(model), backbone.tokenizer, backbone.transform, recipe.folder / "model")
    return result


def prepare_features(recipe: Recipe, tasks: Mapping[str, TaskData]) -> None:
    """Extract and keep the features that a recipe needs, so that runs beside one another find them.

    Args:
        recipe: A recipe whose vision tower is frozen.
        tasks: Its records.
    """
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)
    backbone = load_backbone(recipe.backbone, texts=lambda: training_texts(recipe, tasks))
    attach(backbone.model, recipe.method, list(recipe.tasks))
    make_visual(recipe, backbone, tasks, Progress())


def _train(
    recipe: Recipe,
    model: Any,
    tasks: Mapping[str, TaskData],
    batches: Batches,
    checkpoint: Path | None,
    run: Run | None,
    progress: Progress,
) -> None:
    section = recipe.training
    sizes = {name: task.batch_size or section.batch_size for name, task in recipe.tasks.items()}
    mixing = section.mixing
    mixture = TaskMixture(
        {name: len(data["train"]) for name, data in tasks.items()},
        strategy=mixing.strategy,
        temperature=mixing.temperature,
        weights=mixing.weights,
        caps=mixing.caps,
        batch_size=section.batch_size if mixing.unit == "mixed" else sizes,
        unit=mixing.unit,
        seed=recipe.seed,
        last="fill" if mixing.strategy == "proportional" and mixing.caps is None else "short",
    )
    steps = section.steps or (section.epochs or 1) * len(mixture) // section.accumulation
    folder = recipe.folder / "checkpoints"
    arguments = training_arguments(section, folder, seed=recipe.seed, steps=steps)

    def validate() -> dict[str, float]:
        return average(evaluate_tasks(recipe, model, tasks, batches, "validation", None, progress))

    with progress.bar(f"train {recipe.title}", steps) as advance:
        trainer = MultiTaskTrainer(
            model,
            arguments,
            records={name: data["train"] for name, data in tasks.items()},
            mixture=mixture,
            batches=batches,
            validate=validate if section.evaluate_every else None,
            callbacks=[Report(run, advance)],
            keep=section.keep,
            decay_norms=section.decay_norms,
        )
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if section.evaluate_every and (folder / "best").exists():
        load_adapter(model, folder / "best")


def _prepare_folder(recipe: Recipe, resume: bool, overwrite: bool) -> Path | None:
    folder = recipe.folder
    values = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    if resume:
        checkpoint = require_resumable(folder / "checkpoints")
        if (folder / "recipe.yaml").read_text(encoding="utf-8") != values:
            raise RunError(
                f"`--resume` needs the recipe that {folder} was started with, but it differs from "
                f"{folder / 'recipe.yaml'}. Resume with that file, or start a run of another name."
            )
        return checkpoint
    if folder.exists() and not overwrite:
        raise RunError(
            f"`name` must be new in {recipe.output!r}, but {folder} exists. Use --resume to go on, --overwrite to "
            "start again, or name=... for another run."
        )
    if folder.exists():
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(
            f"`output` must be a folder that can be written, but {folder} cannot be made: {error}"
        ) from None
    (folder / "recipe.yaml").write_text(values, encoding="utf-8")
    return None
