"""Tip-Adapter: cached image features vote for their classes; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from weft.core.few_shot.explain import Votes
from weft.core.few_shot.grid import Grid, steps
from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import CLIP_SCALE, WIDENINGS, Axes, HeadConfig, register_head
from weft.core.few_shot.keys import KeyCache
from weft.core.few_shot.retrieval import IndexKind, NearestKeys
from weft.core.few_shot.samples import Samples, checked_classes

_PUBLISHED = 7.0, 3.0


class CacheHeadConfig(HeadConfig):
    """What all heads with an image cache have.

    Args:
        alpha: Weight of the cache beside the zero-shot logits, before a search.
        beta: Sharpness of the affinity, before a search.
        search_scale: Ends of the grids of beta and alpha that are searched, which are then neither scaled nor widened.
            By default 7 and 3, as in Tip-Adapter's code, with that of alpha multiplied by `logit_scale / 100`: when
            alpha and the logit scale change by one factor, predictions stay.
        search_steps: Number of values in either grid.
        search_widenings: How often a grid is widened, to four times its end, while the best value lies there; by
            default 4, and 0 where `search_scale` is given. Never with `selected_on="paper"`.
        balance_classes: Let every class vote as if it had the mean number of keys, for unbalanced caches.
    """

    alpha: float = Field(default=1.0, ge=0)
    beta: float = Field(default=5.5, gt=0)
    search_scale: tuple[float, float] | None = None
    search_steps: tuple[int, int] = (200, 20)
    search_widenings: int | None = Field(default=None, ge=0, le=8)
    balance_classes: bool = False

    def betas(self) -> list[float]:
        """Searched values of beta."""
        return steps((self.search_scale or _PUBLISHED)[0], self.search_steps[0])

    def alphas(self) -> list[float]:
        """Searched values of alpha."""
        factor = self.logit_scale / CLIP_SCALE if self.search_scale is None else 1.0
        return [factor * alpha for alpha in steps((self.search_scale or _PUBLISHED)[1], self.search_steps[1])]

    def axes(self) -> dict[str, list[float]]:
        """Searched values of what has no natural bounds."""
        return {"beta": self.betas(), "alpha": self.alphas()}

    def widenings(self) -> int:
        """How often a search widens its grid at most."""
        own = WIDENINGS if self.search_scale is None else 0
        return own if self.search_widenings is None else self.search_widenings


@register_head
class TipAdapterConfig(CacheHeadConfig):
    """Tip-Adapter's own defaults.

    Args:
        exact_limit: Largest cache that is read whole; beyond it FAISS (`faiss-cpu`) finds the nearest keys.
        index: Kind of the index; see `weft.core.few_shot.retrieval`.
        neighbours: Keys looked at first.
    """

    method: Literal["tip_adapter"] = "tip_adapter"
    exact_limit: int = Field(default=1_000_000, gt=0)
    index: IndexKind = "flat"
    neighbours: int = Field(default=256, gt=0)


class TipAdapter(FewShotHead):
    """Zero-shot logits plus the votes of cached training images.

    `z = scale · f W + alpha · Σ_{j in class} exp(-beta (1 - f·F_j))`, where `F_j` is the normalised mean of the unit
    features of training image j under its augmentations. A class without keys keeps its zero-shot logit.

    Source: Zhang et al. 2022 (Tip-Adapter), eq. 5 to 7. Differences: each view is normalised before the mean, where the
    code averages raw features; a validation split chooses alpha and beta for every data set, ImageNet too, unless
    `selected_on="paper"`.
    """

    config_class: ClassVar[type[HeadConfig]] = TipAdapterConfig
    cache: KeyCache
    _nearest: NearestKeys | None = None

    def build(self, num_samples: int) -> None:
        """Make an empty cache, and take alpha and beta from the configuration."""
        self.cache = KeyCache(num_samples, self.width, self.num_classes)
        self.selected = {"alpha": self.config.alpha, "beta": self.config.beta}

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Cache the mean features."""
        self.cache = KeyCache.of(samples.mean(), samples.labels, self.num_classes)

    def search_start(self, validation: Samples | None) -> None:
        """Choose the alpha and beta that the cache is trained at, if the configuration says so."""
        if validation is not None and self.selected_on is not None and self.config.start == "searched":
            self._choose(validation, self.selected_on)

    def scores(self, features: Tensor) -> Tensor:
        """The class names' logits and the votes of the keys."""
        init, weights = self.zero_shot(features), self._key_weights()
        alpha, beta = self.selected["alpha"], self.selected["beta"]
        if len(self.cache.labels) <= getattr(self.config, "exact_limit", math.inf):
            return self.cache.logits(features, beta, key_weights=weights, init=init, alpha=alpha)
        if self._nearest is None or self._nearest.cache is not self.cache:
            self._nearest = NearestKeys(self.cache, self.config.index)
        count = self.config.neighbours
        return self._nearest.logits(
            features, init, alpha=alpha, beta=beta, neighbours=count, key_weights=weights
        )

    def _queries(self, features: Tensor) -> Tensor:
        """What is compared with the keys."""
        return features

    def _used_keys(self) -> Tensor:
        """Keys in the order of the cache's labels, shape (keys, …)."""
        return self.cache.keys

    def _key_weights(self, gamma: float | None = None) -> Tensor | None:
        """Weight of every vote, at the gamma in use or another where a head has one, shape (keys,)."""
        return self.cache.balance() if self.config.balance_classes else None

    def _class_sums(self, queries: Tensor, beta: float | Tensor, key_weights: Tensor | None) -> Tensor:
        return self.cache.logits(queries, beta, keys=self._used_keys(), key_weights=key_weights)

    def grid(self, features: Tensor, axes: Axes) -> Grid:
        """Values of beta and alpha, and of gamma where votes are weighted by it."""
        queries, betas, gammas = self._queries(features), axes["beta"], axes.get("gamma", ())
        sharpness = torch.tensor(betas, dtype=features.dtype, device=features.device)
        weights = [self._key_weights(gamma) for gamma in gammas or (None,)]
        shared = [{"gamma": gamma} for gamma in gammas] or [{}]

        def sums_of(rows: slice) -> Tensor:
            found = [self._class_sums(queries[rows], sharpness, each) for each in weights]
            # A copy would double the largest block that there is.
            return found[0] if len(found) == 1 else torch.cat(found)

        candidates = [{**share, "beta": beta} for share in shared for beta in betas]
        return Grid(candidates, sums_of, axes["alpha"], loops=("beta", "alpha", *shared[0]))

    def votes(self, features: Tensor) -> Votes:
        """What each cached sample adds to the logit of its class."""
        cosine = self._queries(features) @ self._used_keys().detach().T
        affinity = (self.selected["beta"] * (cosine - 1)).exp()
        weights = self._key_weights()
        votes = self.selected["alpha"] * (affinity if weights is None else affinity * weights)
        return Votes(self.cache.labels, self.cache.origin, votes, {"image": affinity})

    def add_classes(self, class_weights: Tensor, features: Tensor, labels: Tensor) -> None:
        """Add classes and their keys behind the others, without fitting again.

        Args:
            class_weights: Unit text features of the new classes, shape (new classes, width).
            features: Unit image features, shape (samples, width) or (views, samples, width).
            labels: Classes, shape (samples,); new ones are numbered on from the last old one. Samples of old classes
                are taken too.

        Raises:
            FewShotError: The head is not fitted, or an argument breaks a rule.
        """
        self._require_fitted()
        new = self._checked(class_weights, "class_weights")
        total = self.num_classes + len(new)
        samples = self._samples(features, labels, "features", total)
        self.cache = self.cache.with_added(samples.mean(), samples.labels, total)
        self.class_weights = torch.cat([self.class_weights, new])
        self.num_samples = len(self.cache.labels)

    def remove_classes(self, classes: Sequence[int]) -> None:
        """Remove classes and their keys; the classes behind them move up.

        Raises:
            FewShotError: The head is not fitted, a class does not exist, or no key would be left.
        """
        self._require_fitted()
        gone = set(checked_classes(classes, self.num_classes))
        self._keep_classes([number for number in range(self.num_classes) if number not in gone])
        self.num_samples = len(self.cache.labels)

    def _keep_classes(self, keep: list[int]) -> None:
        """Keep only what belongs to some classes; class `keep[i]` becomes i."""
        self.cache = self.cache.of_classes(keep)
        self.class_weights = self.class_weights[keep]
