"""Features of images and class names under a recipe's frozen encoder, each extracted once and kept."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from weft.core.cache import ImageTextEncoder
from weft.data.media.augment import RandomResizedCrop
from weft.eval.evaluate.image_processor import ProcessorTransform, Transform, load_transform, stacked
from weft.eval.evaluate.visual import features_key
from weft.train.errors import RunError
from weft.train.few_shot.recipe import EncoderSection, ViewsSection
from weft.train.progress import Progress


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

            tag = f"view {view}, crop {section.smallest_crop}"
            found.append(self._kept(records, tag, f"{title}, view {view + 1} of {section.count}", one))
        return torch.stack(found)

    def _kept(self, records: Sequence[Any], tag: str, title: str, pixels: Any) -> Tensor:
        images = [record.image for record in records]
        path = (
            self.folder
            / f"{features_key(images, self.transform, f'{self.encoder.fingerprint()} {tag}')}.safetensors"
        )
        distinct = {image.uri: record for image, record in zip(images, records, strict=True)}
        rows = {uri: row for row, uri in enumerate(sorted(distinct))}
        order = torch.tensor([rows[image.uri] for image in images])
        if path.is_file():
            return load_file(str(path))["features"][order]
        parts = []
        refs = [distinct[uri] for uri in sorted(distinct)]
        with self.progress.bar(f"features of {title}", len(refs)) as advance:
            for start in range(0, len(refs), self.batch_size):
                batch = stacked([pixels(record) for record in refs[start : start + self.batch_size]])
                parts.append(self.encoder.encode_images(batch).cpu())
                advance(min(start + self.batch_size, len(refs)))
        table = torch.cat(parts)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        save_file({"features": table}, str(partial))
        partial.replace(path)
        return table[order]


def load_encoder(section: EncoderSection) -> tuple[ImageTextEncoder, ProcessorTransform]:
    """The encoder of a recipe, frozen, and its image processor.

    Raises:
        RunError: The model, its tokenizer or its image processor cannot be had.
        ImageProcessorError: The image processor cannot be loaded or used.
    """
    path = str(Path(section.name).expanduser()) if Path(section.name).expanduser().exists() else section.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=section.revision)
        model = AutoModel.from_pretrained(path, revision=section.revision)
    except (OSError, ValueError) as error:
        raise RunError(
            f"`encoder.name` must be a folder or a hub id that can be reached, but {section.name!r} cannot be loaded: "
            f"{error}"
        ) from None
    transform = load_transform(path, section.revision)
    if transform is None:
        raise RunError(
            f"`encoder` must have an image processor, but {section.name!r} has none. Save it beside the model: "
            "preprocessor_config.json, or processor_config.json as transformers 5 writes it."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return ImageTextEncoder(model.to(device), tokenizer), transform
