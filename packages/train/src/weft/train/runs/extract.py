"""Features of a recipe's own frozen tower, extracted into stores once, for this run and for others."""

from __future__ import annotations

from pathlib import Path

from weft.train.backbones.loading import load_adapted, reader_of
from weft.train.backbones.tower_features import extract_own, tower_key
from weft.train.errors import RunError
from weft.train.output.folders import check_writable
from weft.train.output.progress import Progress
from weft.train.preflight.fitness import check_fit
from weft.train.preflight.tasks import check_recipe, images_of, load_tasks, training_texts
from weft.train.processes import join_processes
from weft.train.recipe.training import Recipe
from weft.train.runs.open_session import open_session


def extract_keys(recipe: Recipe, folder: Path | None, progress: Progress | None = None) -> dict[str, str]:
    """Extract the features of every image of a recipe, and return the keys with which a run finds them.

    Args:
        recipe: A recipe whose backbone holds a vision tower.
        folder: See `extract_stores`; None for `weft-features`, or, where the model's own processor shows pictures, for
            the folder of features beside the runs.
        progress: Where to show progress.

    Raises:
        RunError: As `extract_stores`; or a folder is given where features are beside the runs.
    """
    if reader_of(recipe.backbone).paired:
        stores = extract_stores(recipe, folder or Path("weft-features"), progress)
        return {f"tasks.{task}.data.features": str(path) for task, path in stores.items()}
    if folder is not None:
        raise RunError(
            f"`--store` must be left out for {recipe.backbone.title!r} because the features of a model that its own "
            f"processor reads lie beside the runs, but is {str(folder)!r}. Set `output` instead."
        )
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"vision": "stored"})})
    check_recipe(recipe)
    tasks = load_tasks(recipe, ("train",))
    processes = join_processes()
    check_fit(recipe, tasks, processes)
    open_session(recipe, tasks, processes=processes, progress=progress)
    return {"training.vision": "stored", "output": recipe.output}


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
    if not reader_of(recipe.backbone).paired:
        raise RunError(
            f"`recipe` must be of a backbone that is read by weft, but {recipe.backbone.title!r} is read by its own "
            "processor. Call `extract_keys`."
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
