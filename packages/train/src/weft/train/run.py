"""One run: from a recipe to a scored, tracked, saved adapter."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from weft.core import attach, detach, load_adapter
from weft.data.media.shift import RandomShift
from weft.data.mixing import TaskMixture
from weft.eval.evaluate.inputs import Batches, TextRules
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.predict import predict
from weft.eval.evaluate.retrieve import Matches
from weft.eval.evaluate.scoring import score
from weft.eval.evaluate.visual import Pixels, Visual, cached_features, extract_features, features_key
from weft.eval.metrics import ScoreReport
from weft.eval.tracking import Run, open_run
from weft.train.backbones import LoadedBackbone, load_backbone
from weft.train.checkpoints import require_resumable
from weft.train.engine import MultiTaskTrainer, training_arguments
from weft.train.errors import RunError
from weft.train.fitness import check_fit
from weft.train.from_scratch import save_backbone
from weft.train.progress import Progress
from weft.train.recipe import Recipe, TaskSection
from weft.train.task_data import TaskData, all_images, check_recipe, load_tasks, training_texts

RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        folder: The run's folder.
        scores: Task to its headline score; `average` is their mean.
        trainable: Trained parameters.
        total: All parameters.
        seconds: Wall time of training and evaluation.
        reports: Task to its whole report.
    """

    folder: Path
    scores: Mapping[str, float]
    trainable: int
    total: int
    seconds: float
    reports: Mapping[str, Mapping[str, Any]]


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
    _write(recipe.folder / "plan.json", plan.to_dict())
    with _tracked(recipe, plan, checkpoint) as run:
        _train(recipe, model, tasks, batches, checkpoint, run, progress)
        model.save_pretrained(recipe.folder / "adapter")
        reports = evaluate_tasks(
            recipe, model, tasks, batches, "test", recipe.folder / "predictions", progress
        )
        result = _result(recipe, plan, reports, time.perf_counter() - started)
        _write(recipe.folder / RESULT, result_values(recipe, result))
        _track_result(run, recipe, result)
    if recipe.save_model:
        save_backbone(detach(model), backbone.tokenizer, backbone.transform, recipe.folder / "model")
    return result


def prepare_features(recipe: Recipe) -> None:
    """Extract and keep the features that a recipe needs, so that runs beside one another find them.

    Args:
        recipe: A recipe whose vision tower is frozen.
    """
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)
    tasks = load_tasks(recipe)
    backbone = load_backbone(recipe.backbone, texts=lambda: training_texts(recipe, tasks))
    attach(backbone.model, recipe.method, list(recipe.tasks))
    make_visual(recipe, backbone, tasks, Progress())


def text_rules(task: TaskSection) -> TextRules:
    """The rules by which the texts of a task are written."""
    return TextRules(
        prompt=task.prompt,
        max_text_tokens=task.max_text_tokens,
        max_target_tokens=task.max_target_tokens,
        max_new_tokens=task.max_new_tokens,
        num_beams=task.num_beams,
        no_repeat_ngram_size=task.no_repeat_ngram_size,
    )


def make_visual(
    recipe: Recipe, backbone: LoadedBackbone, tasks: Mapping[str, TaskData], progress: Progress
) -> Visual:
    """How this run sees images: features extracted once if the tower is frozen, else pixels in every batch.

    Raises:
        RunError: If the backbone has no vision tower, or the method trains it though `training.vision` is frozen.
    """
    model = backbone.model
    if backbone.transform is None or model.vision_tower is None:
        raise RunError(
            f"`backbone` must hold a vision tower and its preprocessor_config.json to read images, but "
            f"{backbone.name!r} does not. Take such a backbone, or extract features first."
        )
    if recipe.training.vision == "trained":
        return Pixels(backbone.transform, keep_mib=recipe.training.keep_images)
    pixels = Pixels(backbone.transform)
    trained = [name for name, p in model.vision_tower.named_parameters() if p.requires_grad]
    trained += [site.address for site in model.weft.plan.sites if site.tower == "vision"]
    if trained:
        raise RunError(
            f"`training.vision` must be 'trained' when the method trains the vision tower, but is 'frozen' and "
            f"{len(trained)} of its parameters or sites are trained. Set it, or keep the tower out of the "
            "method."
        )
    images = all_images(tasks)
    encoder = model.weft.plan.backbone.to_dict()["weights"] or backbone.name
    key = features_key(images, backbone.transform, str(encoder))
    device = next(model.parameters()).device

    def encode(batch: torch.Tensor) -> torch.Tensor:
        return model.encode_images(batch[:, None].to(device))[:, 0]

    def extract() -> Any:
        model.eval()
        with progress.bar("features", len(images)) as advance:
            return extract_features(encode, images, pixels, progress=lambda done, _: advance(done))

    return cached_features(Path(recipe.output) / "features", key, images, extract, blank=recipe.blank_images)


def evaluate_tasks(
    recipe: Recipe,
    model: Any,
    tasks: Mapping[str, TaskData],
    batches: Batches,
    role: str,
    folder: Path | None,
    progress: Progress,
) -> dict[str, ScoreReport]:
    """Predict and score every task that has the role.

    Args:
        recipe: The recipe.
        model: The adapted model.
        tasks: The records.
        batches: Makes inputs.
        role: `validation` or `test`.
        folder: Where predictions are written, one JSON file per task; None writes none.
        progress: Where to show progress.

    Returns:
        Task to its report.
    """
    reports = {}
    device = next(model.parameters()).device
    for name, data in tasks.items():
        if role not in data:
            continue
        section, records = recipe.tasks[name], data[role]
        with progress.bar(f"{role} {name}", len(records)) as advance:
            predictions = predict(
                model,
                name,
                records,
                batches,
                batch_size=recipe.evaluation.batch_size,
                device=device,
                progress=advance,
            )
        if folder is not None:
            plain = predictions.ranked() if isinstance(predictions, Matches) else predictions
            _write(folder / f"{name}.json", plain)
        metric = section.metric or kind_of(records).metric
        reports[name] = score(metric, predictions, records, headline=section.headline)
    return reports


def average(reports: Mapping[str, ScoreReport]) -> dict[str, float]:
    """Headline score of every task in percent, and their mean as `average`."""
    scores = {name: report.percent for name, report in reports.items()}
    return scores | {"average": sum(scores.values()) / len(scores)} if scores else {}


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
            callbacks=[_Report(run, advance)],
            keep=section.keep,
            decay_norms=section.decay_norms,
        )
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if section.evaluate_every and (folder / "best").exists():
        load_adapter(model, folder / "best")


class _Report(TrainerCallback):
    """Hands losses to the tracked run and steps to the progress bar."""

    def __init__(self, run: Run | None, advance: Any) -> None:
        self.run, self.advance = run, advance

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.advance(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.run is None or not logs:
            return
        names = {
            "loss": "train/loss",
            "learning_rate": "train/learning_rate",
            "grad_norm": "train/gradient_norm",
        }
        values = {}
        for name, value in logs.items():
            if name.startswith(("loss/", "validation/")):
                values[f"train/{name}" if name.startswith("loss/") else name] = value
            elif name in names:
                values[names[name]] = value
        if values:
            self.run.log_metrics(values, step=state.global_step)


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


@contextmanager
def _tracked(recipe: Recipe, plan: Any, checkpoint: Path | None) -> Iterator[Run | None]:
    if not recipe.tracking.enabled:
        with nullcontext():
            yield None
        return
    id_file = recipe.folder / "mlflow_run_id"
    run_id = id_file.read_text(encoding="utf-8") if checkpoint is not None and id_file.is_file() else None
    params = {
        "method": recipe.title,
        "seed": recipe.seed,
        "backbone": recipe.backbone.title,
        "tasks": ",".join(recipe.tasks),
        **{f"training.{k}": v for k, v in recipe.training.model_dump(mode="json").items() if k != "mixing"},
        **{f"mixing.{k}": v for k, v in recipe.training.mixing.model_dump(mode="json").items()},
    }
    with open_run(
        store=tracking_store(recipe),
        experiment=recipe.tracking.experiment,
        name=recipe.name,
        params=params,
        tags={"weft.control": str(recipe.control).lower()},
        run_id=run_id,
    ) as run:
        if run_id is None:
            run.log_text((recipe.folder / "recipe.yaml").read_text(encoding="utf-8"), "recipe.yaml")
            run.log_dict(plan.to_dict(), "plan.json")
            run.log_text(str(plan) + "\n", "plan.txt")
        if run.run_id is not None:
            id_file.write_text(run.run_id, encoding="utf-8")
        yield run


def tracking_store(recipe: Recipe) -> str | None:
    """Where a run is tracked: the recipe's store, else `MLFLOW_TRACKING_URI`, else a folder beside the runs."""
    if recipe.tracking.store is None and os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    return recipe.tracking.store or str(Path(recipe.output) / "mlflow")


def _result(recipe: Recipe, plan: Any, reports: Mapping[str, ScoreReport], seconds: float) -> Result:
    return Result(
        folder=recipe.folder,
        scores=average(reports),
        trainable=plan.trainable_parameters,
        total=plan.total_parameters,
        seconds=seconds,
        reports={name: report.to_dict() for name, report in reports.items()},
    )


def _track_result(run: Run | None, recipe: Recipe, result: Result) -> None:
    if run is None:
        return
    metrics = {f"test/{name}": value for name, value in result.scores.items()}
    metrics |= {
        "parameters/trainable": result.trainable,
        "parameters/total": result.total,
        "parameters/percent": 100 * result.trainable / result.total,
        "time/seconds": result.seconds,
        "memory/peak_mb": peak_memory_mb(),
    }
    for task, report in result.reports.items():
        for name, value in report["scores"].items():
            if value is not None:
                metrics[f"test/{task}/{name}"] = value
    run.log_metrics(metrics)
    run.log_artifacts(recipe.folder / "adapter", "adapter")
    run.log_artifacts(recipe.folder / "predictions", "predictions")
    run.log_artifacts(recipe.folder / RESULT)


def result_values(recipe: Recipe, result: Result) -> dict[str, Any]:
    """A result as plain data, as `result.json` holds it."""
    return {
        "name": recipe.name,
        "method": recipe.title,
        "seed": recipe.seed,
        "control": recipe.control,
        "scores": dict(result.scores),
        "trainable": result.trainable,
        "total": result.total,
        "seconds": result.seconds,
        "reports": dict(result.reports),
    }


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
