"""Features of images and class names under a recipe's frozen encoder, each extracted once and kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from weft.core.backbone.tensor_digests import module_digest
from weft.core.few_shot import Images, ImageTextEncoder
from weft.data.features.extract import extract_features
from weft.data.features.index import FeatureKey
from weft.data.media.augment import RandomResizedCrop
from weft.eval.readers.image_processor import Transform, stacked
from weft.train.output.progress import Progress
from weft.train.recipe.few_shot import ViewsSection

FEATURES = "features"
"""Folder in a recipe's `output` that keeps the features of images for all of its runs."""
# Views that stay in memory while a head is trained on them: 0.6 GB at 224 pixels.
_PICTURES = 1024


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
        return self._kept(records, "plain", title, lambda record: record.image.image())

    def views(self, records: Sequence[Any], section: ViewsSection, title: str) -> Tensor:
        """Features of augmented views, shape (views, records, width)."""
        if not section.augment:
            return self.plain(records, title).expand(section.count, -1, -1)
        found = []
        for view in range(section.count):
            kind = f"view {view}, crop {section.smallest_crop}"
            which = f"{title}, view {view + 1} of {section.count}"
            picture = partial(self._view, view=view, section=section)
            # What is drawn hangs on the record's id, so the features do too.
            found.append(self._kept(records, kind, which, picture, lambda record: str(record.id)))
        return torch.stack(found)

    def images(self, records: Sequence[Any], section: ViewsSection | None = None) -> Images:
        """The same images for heads that read them through the encoder themselves; opened when they are read.

        With a section they are views as `views` makes them, some of which stay in memory.
        """
        drawn = section if section is not None and section.augment else None

        def one(row: int, view: int) -> Any:
            record = records[row]
            return self.transform(
                record.image.image() if drawn is None else self._view(record, view=view, section=drawn)
            )

        kept = one if section is None else lru_cache(_PICTURES)(one)
        views = 1 if drawn is None else drawn.count
        return Images(lambda rows, view: stacked([kept(row, view) for row in rows]), len(records), views)

    def _view(self, record: Any, *, view: int, section: ViewsSection) -> Any:
        """One augmented view, a picture."""
        generator = random.Random(f"{view}/{record.id}")
        image = record.image.image()
        size, scale = self.transform.view_size(image), (section.smallest_crop, 1.0)
        image = RandomResizedCrop(size, scale, resample=self.transform.resample)(image, generator)
        if generator.random() < 0.5:
            image = ImageOps.mirror(image)
        return image

    def _kept(
        self,
        records: Sequence[Any],
        kind: str,
        title: str,
        picture: Callable[[Any], Any],
        tag: Callable[[Any], str] = lambda record: "",
    ) -> Tensor:
        def encode(batch: Sequence[Any]) -> list[Any]:
            pixels = self.transform.batch(picture(record) for record in batch)
            return list(self.encoder.encode_images(pixels).cpu().numpy())

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
