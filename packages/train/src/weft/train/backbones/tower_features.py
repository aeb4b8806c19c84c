"""Features of a backbone's own frozen tower: extracted once, by all processes, and kept for other runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from weft.core.backbone.tensor_digests import module_digest
from weft.data import Caption, MediaRef
from weft.data.features.extract import extract_features
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.eval.evaluate.visual import Pixels
from weft.eval.readers.image_processor import Transform
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.processes import Processes

_BATCH = 64


def transform_of(backbone: LoadedBackbone) -> Transform:
    """The image processor of a backbone with a vision tower.

    Raises:
        RunError: If the backbone lacks either.
    """
    if backbone.transform is None or getattr(backbone.model, "vision_tower", None) is None:
        raise RunError(
            f"`backbone` must hold a vision tower and its image processor, but {backbone.name!r} does not. Take such a "
            "backbone, or give every task `data.features`; those that others extracted come into a store by `weft data "
            "import-features`."
        )
    return backbone.transform


def tower_key(backbone: LoadedBackbone) -> FeatureKey:
    """What features of a backbone's tower depend on beside the pictures.

    Raises:
        RunError: If the backbone has no vision tower, or the method trains it or has units in it.
    """
    model: Any = backbone.model
    transform = transform_of(backbone)
    trained = [name for name, p in model.vision_tower.named_parameters() if p.requires_grad]
    trained += [site.address for site in model.weft.plan.sites if site.tower == "vision"]
    if trained:
        raise RunError(
            f"`training.vision` must be 'trained' when the method trains the vision tower, but is 'frozen' and "
            f"{len(trained)} of its parameters or sites are trained. Set it, or keep the tower out of the method."
        )
    return FeatureKey(backbone.name, module_digest(model.vision_tower), transform.fingerprint())


def extract_own(
    backbone: LoadedBackbone,
    images: Iterable[MediaRef],
    folder: Path,
    key: FeatureKey,
    processes: Processes,
    progress: Progress,
    *,
    title: str = "features",
) -> FeatureStore:
    """Extract the features of pictures, however often they come, that a store lacks; all processes call this.

    Raises:
        StateMismatchError: If the folder holds features of another tower.
    """
    model: Any = backbone.model
    pixels, device = Pixels(transform_of(backbone)), next(model.parameters()).device
    refs = list({ref.place: ref for ref in images}.values())

    def encode(records: Sequence[Any]) -> list[Any]:
        batch = pixels.pixels([record.media for record in records])
        with torch.no_grad():
            return list(model.encode_images(batch[:, None].to(device))[:, 0].half().cpu().numpy())

    training = model.training
    model.eval()
    with progress.bar(title, len(refs)) as advance:
        store = extract_features(
            [Caption(id=ref.uri, media=ref, media_id=ref.path) for ref in refs],
            encode,
            folder,
            key,
            batch_size=_BATCH,
            place=(processes.rank, processes.size),
            decide=processes.decided_by_first if processes.size > 1 else None,
            progress=lambda done, missing: advance(len(refs) - missing + done),
        )
    model.train(training)
    return store


def blank_shape(backbone: LoadedBackbone, image: MediaRef) -> tuple[int, ...]:
    """Shape of the features of one picture."""
    model: Any = backbone.model
    pixels, training = Pixels(transform_of(backbone)).pixels([image]), model.training
    model.eval()
    with torch.no_grad():
        shape = model.encode_images(pixels[:, None].to(next(model.parameters()).device)).shape
    model.train(training)
    return tuple(shape[2:])
