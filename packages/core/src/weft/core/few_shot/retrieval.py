"""Caches too large to read whole: FAISS finds the nearest keys, and their exact affinities are summed.

A bound on what all other keys can add says when they cannot change the answer.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from weft.core.errors import FewShotError
from weft.core.few_shot.keys import KeyCache

IndexKind = Literal["flat", "ivf_pq"]
_LISTS_PER_ROOT = 4
_TRAINING_PER_LIST = 39  # below it FAISS warns that its clusters are ill-trained
_BITS = 8


@dataclass(frozen=True)
class Retrieved:
    """Class sums over the nearest keys of every query.

    Attributes:
        sums: `Σ w_j exp(-beta (1 - q·k_j))` over the keys looked at, shape (queries, classes).
        bounds: The most that the other keys can add, shape (queries, classes); true for `flat`, and for `ivf_pq`
            an estimate, because it can miss a near key.
    """

    sums: Tensor
    bounds: Tensor


class NearestKeys:
    """A FAISS index over the keys of a cache.

    Args:
        cache: The cache; its keys must have unit length. The index is made once, from the keys as they are.
        kind: `flat` compares with every key; `ivf_pq` with the compressed keys of the nearest cells.
        cells: Cells that `ivf_pq` looks into.

    Raises:
        FewShotError: FAISS is not installed, keys are not of unit length, or there are too few for `ivf_pq`.
    """

    def __init__(self, cache: KeyCache, kind: IndexKind = "flat", *, cells: int = 16) -> None:
        self.cache, self.kind = cache, kind
        keys = np.ascontiguousarray(cache.keys.detach().float().cpu().numpy())
        lengths = np.linalg.norm(keys, axis=1)
        if np.abs(lengths - 1).max() > 1e-2:
            raise FewShotError(
                f"`cache` must hold keys of length one, but one has length {lengths.max():.4g}. Trained keys need the "
                "exact path; leave the index out."
            )
        self._index = _build(keys, kind, cells)

    def class_sums(
        self, queries: Tensor, beta: float, neighbours: int, key_weights: Tensor | None = None
    ) -> Retrieved:
        """Class sums over the nearest keys, with exact affinities; arguments as of `logits`."""
        count = len(self.cache.labels)
        neighbours = min(neighbours, count)
        _, found = self._index.search(queries.detach().float().cpu().numpy(), neighbours)
        positions = torch.from_numpy(found).to(queries.device)
        # IVF pads with -1 where its cells hold too few keys.
        valid = positions >= 0
        positions = positions.clamp(min=0)
        keys = self.cache.keys.detach()[positions].to(queries)
        similarity = torch.einsum("qd,qkd->qk", queries, keys)
        labels = self.cache.labels[positions].to(torch.int64)
        weighted = queries.new_ones(count) if key_weights is None else key_weights.to(queries)
        weights = weighted[positions] * valid
        none = queries.new_zeros(len(queries), self.cache.num_classes)
        sums = none.scatter_add(1, labels, (beta * (similarity - 1)).exp() * weights)
        seen = none.scatter_add(1, labels, weights)
        mass = none.new_zeros(none.shape[1]).index_add(0, self.cache.labels.to(torch.int64), weighted)
        farthest = torch.where(valid, similarity, torch.inf).amin(1, keepdim=True).clamp(max=1)
        bounds = (mass - seen).clamp(min=0) * (beta * (farthest - 1)).exp()
        return Retrieved(sums, bounds)

    def logits(
        self,
        queries: Tensor,
        init: Tensor,
        *,
        alpha: float,
        beta: float,
        neighbours: int,
        key_weights: Tensor | None = None,
    ) -> Tensor:
        """`init + alpha · sums`, shape (queries, classes), with more keys for queries whose answer is not certain yet.

        An answer is certain if the best logit leads every other class by more than `alpha` times what unseen keys
        can add to it. With `flat` the predicted class is therefore that of the whole cache.

        Args:
            queries: Unit features, shape (queries, width).
            init: Zero-shot logits, shape (queries, classes).
            alpha: Weight of the cache, not negative.
            beta: Sharpness.
            neighbours: Keys looked at first for each query; doubled while an answer is open.
            key_weights: Shape (keys,), equal within a class.
        """
        logits = init.clone()
        rows = torch.arange(len(queries), device=queries.device)
        while len(rows):
            found = self.class_sums(queries[rows], beta, neighbours, key_weights)
            logits[rows] = init[rows] + alpha * found.sums
            if neighbours >= len(self.cache.labels):
                break
            rows = rows[~certain(logits[rows], alpha * found.bounds)]
            neighbours *= 2
        return logits


def certain(logits: Tensor, slack: Tensor) -> Tensor:
    """Whether no class can overtake the best one, for lower bounds of logits and what each may lack; shape (rows,)."""
    best = logits.argmax(1, keepdim=True)
    lead = logits.gather(1, best) - logits - slack
    return lead.scatter(1, best, torch.inf).gt(0).all(1)


def _build(keys: np.ndarray[Any, Any], kind: IndexKind, cells: int) -> Any:
    try:
        with warnings.catch_warnings():
            # Its generated wrappers warn about their own types on import.
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError as error:
        raise FewShotError(
            "An index over keys must have FAISS, but it is not installed. Run: pip install faiss-cpu"
        ) from error
    count, width = keys.shape
    if kind == "flat":
        index: Any = faiss.IndexFlatIP(width)
    else:
        lists = max(1, int(_LISTS_PER_ROOT * count**0.5))
        lists = min(lists, max(1, count // _TRAINING_PER_LIST))
        parts = next(size for size in range(max(1, width // 4), 0, -1) if width % size == 0)
        if count < _TRAINING_PER_LIST * 2**_BITS:
            raise FewShotError(
                f"`kind` may be 'ivf_pq' from {_TRAINING_PER_LIST * 2**_BITS:,} keys on, but there are {count:,}. Use "
                "'flat'."
            )
        index = faiss.index_factory(width, f"IVF{lists},PQ{parts}x{_BITS}", faiss.METRIC_INNER_PRODUCT)
        index.train(keys)
        index.nprobe = min(cells, lists)
    index.add(keys)
    return index
