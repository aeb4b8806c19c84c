"""Features and labels as few-shot heads take them, and what is checked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot.head_config import SelectBy
from weft.core.few_shot.images import Readable

# How far the length of a feature may be from one, by dtype.
_LENGTH_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 2e-2}
_SHOWN = 8


@dataclass(frozen=True)
class Samples:
    """Labelled features on the device of the head; what is taken of them has its dtype.

    Attributes:
        views: Unit features of every sample under every augmentation, shape (views, samples, width).
        labels: Class of every sample, int64, shape (samples,).
        dtype: Dtype of the head.
    """

    views: Tensor
    labels: Tensor
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.labels.numel()

    def mean(self) -> Tensor:
        """Mean of the views of each sample, of unit length, shape (samples, width)."""
        if self.views.shape[0] == 1:
            return self.views[0].to(self.dtype)
        return functional.normalize(self.views.mean(0), dim=-1).to(self.dtype)

    def flat(self) -> tuple[Tensor, Tensor]:
        """Every view as a separate sample: (views · samples, width), and the labels, (views · samples,)."""
        return self.views.flatten(0, 1).to(self.dtype), self.labels.repeat(self.views.shape[0])

    def score(self, logits: Tensor, by: SelectBy = "accuracy") -> tuple[float, float]:
        """Accuracy in per cent, and minus the cross-entropy, which breaks ties; by `loss` the other way round."""
        right = 100 * float((logits.argmax(1) == self.labels).double().mean())
        likelihood = -float(functional.cross_entropy(logits.float(), self.labels))
        return (right, likelihood) if by == "accuracy" else (likelihood, right)

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One random view of each of some samples, shape (rows, width), and their labels."""
        chosen = torch.randint(self.views.shape[0], rows.shape, generator=generator)
        rows = rows.to(self.views.device)
        return self.views[chosen.to(rows.device), rows].to(self.dtype), self.labels[rows]


def as_samples(
    features: Readable, labels: Tensor, class_weights: Tensor, *, num_classes: int, name: str = "features"
) -> Samples:
    """Check labelled features, and move them to where a head is.

    Args:
        features: Unit features, shape (samples, width), or (views, samples, width) with several augmentations.
        labels: Integer classes, shape (samples,).
        class_weights: Those of the head, whose width, device and dtype count.
        num_classes: Number of classes.
        name: What messages call the features.

    Raises:
        FewShotError: Shapes or dtypes disagree, a feature is not finite or not of unit length, a label is out of
            range, or there is no sample.
    """
    width = class_weights.shape[-1]
    if isinstance(features, Tensor) and features.dim() == 3:
        views = torch.stack([checked_features(view, width=width, name=name) for view in features])
    else:
        views = checked_features(features, width=width, name=name).unsqueeze(0)
    checked_labels(labels, views.shape[1], num_classes=num_classes, name=name)
    device = class_weights.device
    return Samples(views.to(device), labels.to(device, torch.int64), class_weights.dtype)


def checked_labels(labels: Tensor, count: int, *, num_classes: int, name: str = "features") -> Tensor:
    """The classes of `count` samples, or an error that says what is wrong; see `as_samples`."""
    if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
        shown = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise FewShotError(
            f"`labels` must be integers of shape (samples,), but is {shown}. Give one class number per sample."
        )
    if labels.numel() != count:
        raise FewShotError(
            f"`labels` must hold one class per row of `{name}` ({count}), but holds {labels.numel()}. "
            "Check which tensors belong together."
        )
    if labels.numel() == 0:
        raise FewShotError(f"`{name}` must hold at least one sample, but is empty. Check the split.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise FewShotError(
            f"`labels` must lie in 0..{num_classes - 1}, but hold {low if low < 0 else high}. Count classes from "
            "0, in the order of the class weights."
        )
    return labels


def checked_features(features: Readable, *, width: int, name: str = "features") -> Tensor:
    """Unit features of shape (rows, width), or an error that says what is wrong; see `as_samples`."""
    if not isinstance(features, Tensor) or features.dtype not in _LENGTH_TOLERANCE:
        shown = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise FewShotError(
            f"`{name}` must be a floating-point tensor, but is {shown}. Convert it with .to(torch.float32)."
        )
    if features.dim() != 2 or features.shape[1] != width:
        raise FewShotError(
            f"`{name}` must have shape (samples, {width}), the width of the class weights, but has shape "
            f"{tuple(features.shape)}. Take features of the encoder that made the class weights."
        )
    if not bool(torch.isfinite(features).all()):
        bad = (~torch.isfinite(features).all(1)).nonzero().flatten().tolist()
        raise FewShotError(
            f"`{name}` must be finite, but {len(bad)} rows are not: {listed(bad)}. Encode these images again."
        )
    lengths = features.detach().float().norm(dim=1)
    off = (lengths - 1).abs() > _LENGTH_TOLERANCE[features.dtype]
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise FewShotError(
            f"`{name}` must have rows of length one, but row {row} has length {float(lengths[row]):.4g} "
            f"({int(off.sum())} such rows). Use torch.nn.functional.normalize(features, dim=-1)."
        )
    return features


def checked_classes(classes: Sequence[int], num_classes: int) -> list[int]:
    """Numbers of classes, or an error where there is no such class."""
    for number in classes:
        if not 0 <= number < num_classes:
            raise FewShotError(
                f"`classes` must lie in 0..{num_classes - 1}, but hold {number}. Count from 0, in the order of the "
                "class weights."
            )
    return list(classes)


def check_every_class(labels: Tensor, num_classes: int) -> None:
    """Require a sample of every class."""
    counts = torch.bincount(labels, minlength=num_classes)
    absent = (counts == 0).nonzero().flatten().tolist()
    if absent:
        raise FewShotError(
            f"`labels` must hold every class, but {len(absent)} of {num_classes} have no sample: {listed(absent)}. "
            "Add samples, or pass `allow_missing=True`: these classes then keep their zero-shot logits."
        )


def listed(numbers: list[int]) -> str:
    """The first few numbers, for messages."""
    more = ", …" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more
