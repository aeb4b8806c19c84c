"""Features of a recipe's own frozen tower, extracted into stores once, for this run and for others."""

from __future__ import annotations

from pathlib import Path

from weft.train.backbones.loading import load_adapted
from weft.train.backbones.own_features import extract_own, tower_key
from weft.train.backbones.read import is_read
from weft.train.errors import RunError
from weft.train.output.folders import check_writable
from weft.train.output.progress import Progress
from weft.train.preflight.tasks import images_of, load_tasks, training_texts
from weft.train.processes import join_processes
from weft.train.recipe.training import Recipe


def extract_stores(recipe: Recipe, folder: Path, progress: Progress | None = None) -> dict[str, Path]:
    """Extract the features of every image of every task; an interrupted call resumes.

    Processes that a launcher started divide the images among them.

    Args:
        recipe: A recipe whose backbone holds a vision tower.
        folder: Each task's store becomes a folder of its name in it. A store that is there gains what it lacks.
        progress: Where to show progress.

    Returns:
        Task to its store, as `tasks.NAME.data.features` takes it.

    Raises:
        RunError: If the backbone has no frozen vision tower, or the folder cannot be written.
        StateMismatchError: If a store is there that another tower made.
    """
    progress = progress or Progress()
    processes = join_processes()
    if is_read(recipe.backbone):
        raise RunError(
            f"`backbone` must read stored features to have them extracted, but {recipe.backbone.title!r} is read by "
            "its own processor and shown pictures in every batch. Train it without `weft features`."
        )
    tasks = load_tasks(recipe)
    check_writable(folder, "--store")
    backbone = load_adapted(recipe, texts=lambda: training_texts(recipe, tasks), processes=processes)
    key = tower_key(backbone)
    return {
        name: extract_own(
            backbone, images_of(data), folder / name, key, processes, progress, title=f"features {name}"
        ).path
        for name, data in tasks.items()
    }
