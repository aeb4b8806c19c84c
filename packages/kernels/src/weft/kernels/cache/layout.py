"""How cached keys are laid out: sorted by class, with equal counts or with end offsets per class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weft.kernels.errors import KernelValueError


class SortedKeys(NamedTuple):
    """Result of `sort_by_class`.

    Attributes:
        order: permutation that sorts the keys by class, stable, int64, shape (keys,).
        offsets: end of every class in the sorted keys, int64, shape (classes,).
    """

    order: Tensor
    offsets: Tensor


def sort_by_class(labels: Tensor, num_classes: int) -> SortedKeys:
    """Prepare a cache once: the order that sorts its keys by class, and where each class ends.

    Args:
        labels: class of every key, integers in [0, num_classes), shape (keys,).
        num_classes: number of classes, empty ones included.

    Raises:
        KernelValueError: a label is out of range.

    Example:
        >>> sort_by_class(torch.tensor([2, 0, 2]), 4).offsets
        tensor([1, 1, 3, 3])
    """
    if labels.numel():
        low, high = (int(v) for v in torch.aminmax(labels))
        if low < 0 or high >= num_classes:
            raise KernelValueError(
                f"`labels` must lie in [0, {num_classes}), but hold {low if low < 0 else high}. "
                "Check `num_classes`."
            )
    counts = torch.bincount(labels.to(torch.int64), minlength=num_classes)
    return SortedKeys(torch.argsort(labels, stable=True), counts.cumsum(0))


def labels_of(keys: int, offsets: Tensor | None, shots: int, device: torch.device) -> Tensor:
    """Class of every sorted key, int64, shape (keys,), without a host sync."""
    position = torch.arange(keys, device=device)
    if offsets is None:
        return position // shots
    return torch.searchsorted(offsets.to(torch.int64), position, right=True)
