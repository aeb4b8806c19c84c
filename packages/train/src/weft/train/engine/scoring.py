"""How a run sees, reads and scores the records of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from weft.core.backbone.text_length import fixed_text_length
from weft.data import MediaRef
from weft.data.media.shift import RandomShift
from weft.eval.evaluate.augmented import AugmentedPixels
from weft.eval.evaluate.frames import Frames
from weft.eval.evaluate.inputs import Batches
from weft.eval.evaluate.kinds import metric_of
from weft.eval.evaluate.matches import Matches
from weft.eval.evaluate.predict import Predictions, predict
from weft.eval.evaluate.processes import shared_batches
from weft.eval.evaluate.rank import rank_answers
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.scoring import reference, score
from weft.eval.evaluate.stored import stored_features
from weft.eval.evaluate.visual import Blank, Pixels, Visual
from weft.eval.metrics import ScoreReport
from weft.eval.readers.image_processor import Transform
from weft.eval.report import record_table
from weft.eval.submissions import save_submission
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.backbones.own_features import blank_shape, extract_own, tower_key, transform_of
from weft.train.engine.sharding import is_shared
from weft.train.output.progress import Progress
from weft.train.output.result import write_json
from weft.train.preflight.answers import read_answers
from weft.train.preflight.reading import reader_batches, text_rules
from weft.train.preflight.stored import open_features
from weft.train.preflight.tasks import TaskData, all_images, images_of
from weft.train.processes import ONE, Processes
from weft.train.recipe.sections import TrainingSection
from weft.train.recipe.training import Recipe


def make_batches(recipe: Recipe, backbone: LoadedBackbone, visual: Visual | None) -> Batches | ReaderBatches:
    """What makes the inputs of a run.

    Args:
        recipe: The recipe.
        backbone: Its backbone: its reader; or the tokenizer, and the length that its texts are padded to.
        visual: How the run sees images, or None where the backbone has a reader.
    """
    if backbone.reader is not None:
        return reader_batches(recipe, backbone.reader)
    assert visual is not None, "a backbone without a reader is shown images by the run"
    return Batches(
        backbone.tokenizer,
        visual,
        {name: text_rules(task) for name, task in recipe.tasks.items()},
        seed=recipe.seed,
        shift=RandomShift(recipe.training.shift) if recipe.training.shift else None,
        text_length=fixed_text_length(backbone.model),
    )


def make_visual(
    recipe: Recipe,
    backbone: LoadedBackbone,
    tasks: Mapping[str, TaskData],
    progress: Progress,
    processes: Processes = ONE,
) -> Visual | None:
    """How this run sees images: stored features, or those of a frozen tower, or pixels in every batch.

    A backbone that its own processor reads is shown images by its reader: there is nothing to prepare.

    Args:
        recipe: The recipe.
        backbone: Its backbone, with units.
        tasks: The records.
        progress: Where to show progress.
        processes: The processes of the run, all of which call this: they share the images out.

    Raises:
        RunError: If the backbone has no vision tower, or the method trains it though `training.vision` is frozen.
    """
    if backbone.reader is not None:
        return None
    model = backbone.model
    stored = open_features(recipe, tasks, model.config)
    if stored is not None:
        return stored
    if recipe.training.vision == "trained":
        images = chain.from_iterable(map(images_of, tasks.values()))
        return _decoded(recipe.training, transform_of(backbone), images)
    key, every = tower_key(backbone), all_images(tasks)
    if recipe.blank_images:
        return Blank(blank_shape(backbone, every[0]))
    folder = Path(recipe.output) / "features" / key.digest()
    store = extract_own(backbone, every, folder, key, processes, progress)
    return stored_features([([store], every)], tokens=0)


def _decoded(section: TrainingSection, transform: Transform, images: Iterable[MediaRef]) -> Visual:
    """Pixels in every batch, for a tower that is trained."""
    if any(ref.kind == "video" for ref in images):
        return Frames(transform, section.frames, section.keep_images)
    plain = Pixels(transform, keep_mib=section.keep_images)
    return plain if section.augment is None else AugmentedPixels(plain, **section.augment.model_dump())


def _second_stage(recipe: Recipe) -> dict[str, Any] | None:
    section = recipe.evaluation
    if not section.rerank:
        return None
    return {
        "candidates": section.rerank,
        "similarity_weight": section.similarity_weight,
        "frame_aware": section.frame_aware,
    }


def _with_entry(report: ScoreReport, name: str, other: ScoreReport) -> ScoreReport:
    """A report with the headline score of another metric beside its own scores."""
    return replace(
        report,
        scores={**report.scores, name: other.value},
        units={**report.units, name: other.units[other.headline]},
    )


def evaluate_tasks(
    recipe: Recipe,
    model: Any,
    tasks: Mapping[str, TaskData],
    batches: Batches | ReaderBatches,
    role: str,
    folder: Path | None,
    progress: Progress,
    processes: Processes = ONE,
) -> dict[str, ScoreReport]:
    """Predict and score every task that has the role.

    Several processes share the batches of a task; given the same weights, predictions and scores are bit for bit those
    of one. The second stage of retrieval is done by each process as a whole; so is everything where the model is shared
    out, so that all ask for each layer at the same time.

    Args:
        recipe: The recipe.
        model: The adapted model.
        tasks: The records.
        batches: Makes inputs.
        role: `validation` or `test`.
        folder: Where predictions are written, per task one JSON file, one table with pictures of some, and the file
            that its benchmark takes; None writes none.
        progress: Where to show progress.
        processes: The processes of the run.

    Returns:
        Task to its report, the same on every process. A split whose answers are hidden, as benchmarks hide those of
        their tests, is predicted and has none.
    """
    reports = {}
    device = next(model.parameters()).device
    for name, data in tasks.items():
        if role not in data:
            continue
        section, records = recipe.tasks[name], data[role]
        share = nullcontext() if is_shared(model) else shared_batches()
        with share, progress.bar(f"{role} {name}", len(records)) as advance:
            ask: Callable[..., Predictions] = partial(predict, rerank=_second_stage(recipe))
            if section.choose_from is not None:
                ask = partial(rank_answers, candidates=read_answers(name, section.choose_from))
            predictions = ask(
                model,
                name,
                records,
                batches,
                batch_size=recipe.evaluation.batch_size,
                device=device,
                progress=advance,
            )
        if folder is not None and processes.first:
            plain = predictions.ranked() if isinstance(predictions, Matches) else predictions
            write_json(folder / f"{name}.json", plain)
            if isinstance(predictions, dict):
                save_submission(folder, name, section.data.name, predictions)
        if not any(map(reference, records)):
            continue
        metric = section.metric or metric_of(records)
        reports[name] = score(metric, predictions, records, headline=section.headline)
        if section.published_metric is not None:
            reports[name] = _with_entry(
                reports[name], section.published_metric, score(section.published_metric, predictions, records)
            )
        if folder is not None and processes.first:
            record_table(name, predictions, records, reports[name], folder).save(folder)
    return reports
