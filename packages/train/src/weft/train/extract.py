"""Features of a recipe's own frozen tower, extracted into stores once, for this run and for others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from weft.core import attach
from weft.data.extract import extract_features
from weft.data.features import FeatureKey, FeatureStore
from weft.data.record_set import RecordSet
from weft.data.records import Caption
from weft.eval.evaluate.visual import Pixels
from weft.train.backbones import load_backbone
from weft.train.errors import RunError
from weft.train.folders import check_writable
from weft.train.processes import join_processes
from weft.train.progress import Progress
from weft.train.recipe import Recipe
from weft.train.task_data import images_of, load_tasks, training_texts

_BATCH = 64


def extract_stores(recipe: Recipe, folder: Path, progress: Progress | None = None) -> dict[str, Path]:
    """Extract the features of every image of every task; what an interrupted call left is gone on with.

    Processes that a launcher started share the images out.

    Args:
        recipe: A recipe whose backbone holds a vision tower.
        folder: Each task's store becomes a folder of its name in it. A store that is there and fits is kept.
        progress: Where to show progress.

    Returns:
        Task to its store, as `tasks.NAME.data.features` takes it.

    Raises:
        RunError: If the backbone has no vision tower, or the folder cannot be written.
        StateMismatchError: If a store is there that another tower or other data made.
    """
    progress = progress or Progress()
    processes = join_processes()
    tasks = load_tasks(recipe)
    check_writable(folder, "--store")
    set_seed(recipe.seed)
    backbone = load_backbone(recipe.backbone, texts=lambda: training_texts(recipe, tasks))
    model: Any = backbone.model.eval().to(processes.device)
    if backbone.transform is None or getattr(model, "vision_tower", None) is None:
        raise RunError(
            f"`backbone` must hold a vision tower and its image processor, but {backbone.name!r} does not. "
            "Features that others extracted come into a store by `weft data import-features`."
        )
    described = attach(model, recipe.method, list(recipe.tasks)).weft.plan.backbone
    pixels = Pixels(backbone.transform)

    def encode(records: Sequence[Any]) -> list[Any]:
        batch = pixels.pixels([record.media for record in records])
        with torch.no_grad():
            return list(model.encode_images(batch[:, None].to(processes.device))[:, 0].half().cpu().numpy())

    stores = {}
    for name, data in tasks.items():
        distinct = {ref.path: ref for ref in images_of(data)}
        records = RecordSet(
            name,
            "all",
            "caption",
            [Caption(id=path, media=ref, media_id=path) for path, ref in distinct.items()],
        )
        key = FeatureKey(
            backbone.name, str(described.weights), backbone.transform.fingerprint(), records.fingerprint()
        )
        stores[name] = folder / name
        if (stores[name] / "index.json").is_file():
            FeatureStore(stores[name], key)
            continue
        total = len(records)
        with progress.bar(f"features {name}", total) as advance:
            done = 0

            def counted(batch: Sequence[Any], total: int = total) -> list[Any]:
                nonlocal done
                done += len(batch)
                # The others are about as far.
                advance(min(total, done * processes.size))
                return encode(batch)

            extract_features(
                records,
                counted,
                stores[name],
                key,
                batch_size=_BATCH,
                place=(processes.rank, processes.size),
                meet=processes.wait if processes.size > 1 else None,
            )
    return stores
