"""A session opened: the model of a recipe, how the run sees images, and what makes its batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from weft.data import MediaRef
from weft.data.media.shift import RandomShift
from weft.eval.evaluate.augmented import AugmentedPixels, ShiftedPixels
from weft.eval.evaluate.frames import Frames
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.stored import stored_features
from weft.eval.evaluate.stored_pictures import StoredPictures
from weft.eval.evaluate.visual import Blank, Pixels, Visual
from weft.eval.readers.classes import Classes
from weft.eval.readers.image_processor import Transform
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.backbones.loading import load_adapted
from weft.train.backbones.processor_features import extract_read
from weft.train.backbones.tower_features import blank_shape, extract_own, tower_key, transform_of
from weft.train.engine.session import Session
from weft.train.output.progress import Progress
from weft.train.preflight.classes import classes_of
from weft.train.preflight.packing import check_rows_apart
from weft.train.preflight.reading import reader_batches
from weft.train.preflight.stored import open_features
from weft.train.preflight.tasks import TaskData, all_images, images_of, training_texts
from weft.train.processes import ONE, Processes
from weft.train.recipe.training import Recipe, TrainingSection


def open_session(
    recipe: Recipe,
    tasks: Mapping[str, TaskData],
    *,
    folder: Path | None = None,
    adapter: Path | None = None,
    processes: Processes = ONE,
    progress: Progress | None = None,
) -> Session:
    """Load the model of a recipe, with new units or those in `adapter`, and prepare what its batches are made with.

    All processes of the run call this; for `folder` see `load_adapted`.

    Raises:
        RunError: As `load_adapted` and `make_visual` do.
    """
    progress = progress or Progress()
    texts = None if adapter is not None else lambda: training_texts(recipe, tasks)
    backbone = load_adapted(recipe, folder=folder, adapter=adapter, texts=texts, processes=processes)
    visual = make_visual(recipe, backbone, tasks, progress, processes)
    stored = make_stored(recipe, backbone, tasks, progress, processes)
    batches = make_batches(recipe, backbone, visual, stored, classes_of(recipe, tasks))
    if recipe.training.packing:
        trained = [(name, data["train"]) for name, data in tasks.items() if "train" in data]
        rows = [(name, records[place]) for name, records in trained for place in range(min(2, len(records)))]
        if rows:
            check_rows_apart(backbone.model, batches, rows)
    return Session(recipe, tasks, backbone, batches, processes, progress)


def make_batches(
    recipe: Recipe,
    backbone: LoadedBackbone,
    visual: Visual | None,
    stored: StoredPictures | None = None,
    classes: Mapping[str, Classes] = MappingProxyType({}),
) -> ReaderBatches:
    """What makes the inputs of a run; `visual` is how it sees images, None where the backbone's own processor does."""
    reader = backbone.reader
    if visual is not None:
        reader = reader.with_processor(replace(reader.processor, show=visual, draw=visual.drawn))
    return reader_batches(recipe, reader, stored, classes)


def make_visual(
    recipe: Recipe,
    backbone: LoadedBackbone,
    tasks: Mapping[str, TaskData],
    progress: Progress,
    processes: Processes = ONE,
) -> Visual | None:
    """How this run sees images: stored features, or those of a frozen tower, or pixels in every batch.

    A backbone that its own processor reads is shown images by its reader: there is nothing to prepare. All processes of
    the run call this, and divide the images among them.

    Raises:
        RunError: If the backbone has no vision tower, or the method trains it though `training.vision` is frozen.
    """
    if not backbone.reader.paired:
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


def make_stored(
    recipe: Recipe,
    backbone: LoadedBackbone,
    tasks: Mapping[str, TaskData],
    progress: Progress,
    processes: Processes = ONE,
) -> StoredPictures | None:
    """Features that the training of a model reads which its own processor shows pictures; None if it sees pictures.

    Raises:
        RunError: If the model does not take features, or the method changes what they come of.
    """
    if backbone.reader.paired or recipe.training.vision != "stored":
        return None
    records = chain.from_iterable(data["train"] for data in tasks.values() if "train" in data)
    return extract_read(backbone, records, Path(recipe.output) / "features", processes, progress)


def _decoded(section: TrainingSection, transform: Transform, images: Iterable[MediaRef]) -> Visual:
    """Pixels in every batch, for a tower that is trained."""
    if any(ref.kind == "video" for ref in images):
        visual: Visual = Frames(transform, section.frames, section.keep_images)
    else:
        plain = Pixels(transform, keep_mib=section.keep_images)
        visual = plain if section.augment is None else AugmentedPixels(plain, **section.augment.model_dump())
    return ShiftedPixels(visual, RandomShift(section.shift)) if section.shift else visual
