"""The cache itself: keys sorted by class, which vote for their class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.errors import FewShotError
from weft.kernels import cache_logits, sort_by_class


class KeyCache(nn.Module):
    """Keys with labels, laid out for `weft.kernels.cache_logits`.

    Values are labels (int32), never one-hot vectors, and no (queries, keys) matrix is made. A class may have any
    number of keys, also none: its sum is then zero.

    Args:
        num_samples: Number of keys.
        width: Width of a key.
        num_classes: Number of classes.

    Attributes:
        keys: Sorted by class, shape (keys, width).
        labels: Class of every key, int32, shape (keys,).
        origin: Position of every key in the samples it was made from, int64, shape (keys,).
    """

    labels: Tensor
    origin: Tensor

    def __init__(self, num_samples: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.keys = nn.Parameter(torch.zeros(num_samples, width), requires_grad=False)
        self.register_buffer("labels", torch.zeros(num_samples, dtype=torch.int32))
        self.register_buffer("origin", torch.zeros(num_samples, dtype=torch.int64))

    @classmethod
    def of(cls, keys: Tensor, labels: Tensor, num_classes: int, origin: Tensor | None = None) -> KeyCache:
        """A cache of some keys, which need not be sorted; `origin` is by default their positions."""
        cache = cls(0, keys.shape[1], num_classes).to(keys.device)
        order = sort_by_class(labels, num_classes).order
        origin = torch.arange(len(keys), device=keys.device) if origin is None else origin
        cache.keys = nn.Parameter(keys[order].detach().clone(), requires_grad=False)
        cache.labels, cache.origin = labels[order].to(torch.int32), origin[order]
        return cache

    def counts(self) -> Tensor:
        """Keys of every class, int64, shape (classes,)."""
        return torch.bincount(self.labels.to(torch.int64), minlength=self.num_classes)

    def layout(self) -> dict[str, Any]:
        """What kernels must know: `shots` where all classes have equally many keys, else `offsets`."""
        counts = self.counts()
        shots = int(counts[0])
        if shots > 0 and bool((counts == shots).all()):
            return {"shots": shots}
        return {"offsets": counts.cumsum(0)}

    def balance(self) -> Tensor:
        """Weight of every key with which each class votes as if it had the mean number of keys, shape (keys,)."""
        counts = self.counts().to(self.keys.dtype)
        mean = counts[counts > 0].mean()
        return (mean / counts.clamp(min=1))[self.labels.to(torch.int64)]

    def logits(
        self, queries: Tensor, beta: float | Tensor, *, keys: Tensor | None = None, **options: Any
    ) -> Tensor:
        """`init + alpha · Σ_{j in class} w_j · exp(-beta (1 - q·k_j))`, shape (queries, classes).

        Args:
            queries: Shape (queries, width).
            beta: Sharpness, or a grid of shape (betas,), which then is the first axis of the result too.
            keys: Other keys with the labels of these, in their order; shape (keys, width).
            **options: What else `weft.kernels.cache_logits` takes, such as `key_weights`, `init` and `alpha`.
        """
        cached = self.keys if keys is None else keys
        return cache_logits(queries.to(self.keys.dtype), cached, beta=beta, **self.layout(), **options)

    def with_added(self, keys: Tensor, labels: Tensor, num_classes: int) -> KeyCache:
        """This cache and more keys, which are numbered after those that are there; `num_classes` counts all classes."""
        first = int(self.origin.max()) + 1 if len(self.origin) else 0
        origin = torch.arange(first, first + len(keys), device=keys.device)
        return KeyCache.of(
            torch.cat([self.keys.detach(), keys.to(self.keys.dtype)]),
            torch.cat([self.labels, labels.to(torch.int32)]),
            num_classes,
            torch.cat([self.origin, origin]),
        )

    def kept_by(self, keep: Sequence[int]) -> Tensor:
        """Positions of the keys of some classes, in the order in which `of_classes` keeps them."""
        new = self._number(keep)[self.labels.to(torch.int64)]
        kept = (new >= 0).nonzero().flatten()
        return kept[torch.argsort(new[kept], stable=True)]

    def _number(self, keep: Sequence[int]) -> Tensor:
        """New number of every class, -1 for those that are left out, int64, shape (classes,)."""
        number = torch.full((self.num_classes,), -1, dtype=torch.int64)
        number[list(keep)] = torch.arange(len(keep))
        return number.to(self.labels.device)

    def of_classes(self, keep: Sequence[int]) -> KeyCache:
        """The cache of some classes alone; class `keep[i]` becomes i.

        Raises:
            FewShotError: No key would be left.
        """
        rows = self.kept_by(keep)
        if rows.numel() == 0:
            raise FewShotError(
                "`classes` must leave at least one key in the cache, but leaves none. Keep a class with samples."
            )
        labels = self._number(keep)[self.labels[rows].to(torch.int64)]
        return KeyCache.of(self.keys.detach()[rows], labels, len(keep), self.origin[rows])
