"""Features of images and class names under a recipe's frozen encoder, each extracted once and kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from weft.core.backbone.tensor_digests import module_digest
from weft.core.few_shot import ImageTextEncoder
from weft.data.features.extract import extract_features
from weft.data.features.index import FeatureKey
from weft.data.media.augment import RandomResizedCrop
from weft.eval.readers.image_processor import ProcessorTransform, Transform, load_transform, stacked
from weft.train.backbones.saved import fault_of_loading, load_saved, saved_path
from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.recipe.few_shot import EncoderSection, ViewsSection

FEATURES = "features"
"""Folder in a recipe's `output` that keeps the features of images for all of its runs."""


@dataclass
class Extractor:
    """Turns records into unit features.

    Attributes:
        encoder: The frozen encoder.
        transform: Its image processor.
        folder: Where features are kept.
        batch_size: Images of one pass.
        progress: Where to show progress.
    """

    encoder: ImageTextEncoder
    transform: Transform
    folder: Path
    batch_size: int
    progress: Progress

    def plain(self, records: Sequence[Any], title: str) -> Tensor:
        """Features of the images as they are, shape (records, width)."""
        return self._kept(records, "plain", title, lambda record: self.transform(record.image.image()))

    def views(self, records: Sequence[Any], section: ViewsSection, title: str) -> Tensor:
        """Features of augmented views, shape (views, records, width)."""
        if not section.augment:
            return self.plain(records, title).expand(section.count, -1, -1)
        scale, resample = (section.smallest_crop, 1.0), self.transform.resample
        found = []
        for view in range(section.count):

            def one(record: Any, view: int = view) -> Any:
                generator = random.Random(f"{view}/{record.id}")
                image = record.image.image()
                crop = RandomResizedCrop(self.transform.view_size(image), scale, resample=resample)
                image = crop(image, generator)
                if generator.random() < 0.5:
                    image = ImageOps.mirror(image)
                return self.transform(image)

            kind = f"view {view}, crop {section.smallest_crop}"
            which = f"{title}, view {view + 1} of {section.count}"
            # What is drawn hangs on the record's id, so the features do too.
            found.append(self._kept(records, kind, which, one, lambda record: str(record.id)))
        return torch.stack(found)

    def _kept(
        self,
        records: Sequence[Any],
        kind: str,
        title: str,
        pixels: Callable[[Any], Any],
        tag: Callable[[Any], str] = lambda record: "",
    ) -> Tensor:
        def encode(batch: Sequence[Any]) -> list[Any]:
            return list(
                self.encoder.encode_images(stacked([pixels(record) for record in batch])).cpu().numpy()
            )

        key = FeatureKey(
            type(self.encoder.model).__name__, self._weights, f"{self.transform.fingerprint()}, {kind}"
        )
        with self.progress.bar(f"features of {title}", len(records)) as advance:
            store = extract_features(
                records,
                encode,
                self.folder / key.digest(),
                key,
                tag=tag,
                batch_size=self.batch_size,
                dtype="float32",
                progress=lambda done, missing: advance(max(0, len(records) - missing) + done),
            )
        rows = [store.find(record, tag(record)) for record in records]
        return torch.from_numpy(np.stack([store[row] for row in rows if row is not None]))

    @cached_property
    def _weights(self) -> str:
        return module_digest(self.encoder.model)


def load_encoder(section: EncoderSection) -> tuple[ImageTextEncoder, ProcessorTransform]:
    """The encoder of a recipe, frozen, and its image processor.

    Raises:
        RunError: The model, its tokenizer or its image processor cannot be had.
        ImageProcessorError: The image processor cannot be loaded or used.
    """
    path = saved_path(section.name, "encoder.name")
    try:
        tokenizer = load_saved(AutoTokenizer, path, section.revision)
        model = load_saved(AutoModel, path, section.revision)
    except (OSError, ValueError) as error:
        raise RunError(
            f"`encoder.name` must be a folder or a hub id that can be reached, but {section.name!r} cannot be loaded: "
            f"{fault_of_loading(error)}"
        ) from None
    transform = load_transform(path, section.revision)
    if transform is None:
        raise RunError(
            f"`encoder` must have an image processor, but {section.name!r} has none. Save it beside the model: "
            "preprocessor_config.json, or processor_config.json as transformers 5 writes it."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return ImageTextEncoder(model.to(device), tokenizer), transform


def width_of(section: EncoderSection) -> int | None:
    """Width of an encoder's features: what the recipe says, or its configuration where that lies on this machine."""
    if section.width is not None:
        return section.width
    path = str(Path(section.name).expanduser()) if Path(section.name).expanduser().exists() else section.name
    try:
        config = load_saved(AutoConfig, path, section.revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    # CLIP and weft's own encoder name the width of their common space; SigLIP's is that of its image tower.
    towers = (
        (config, "projection_dim"),
        (config, "projection_size"),
        (getattr(config, "vision_config", None), "hidden_size"),
    )
    return next((width for owner, name in towers if (width := getattr(owner, name, None)) is not None), None)
