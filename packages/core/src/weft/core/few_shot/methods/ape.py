"""APE: Tip-Adapter on the channels that tell classes apart, with votes weighted by how well a key is classified."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.keys import KeyCache
from weft.core.few_shot.methods.tip_adapter import CacheHeadConfig, TipAdapter
from weft.core.few_shot.samples import Samples

_EPSILON = 1e-6


class PrunedCacheConfig(CacheHeadConfig):
    """What APE and APE-T have in common.

    Args:
        channel_share: Share of the channels that is kept.
        similarity_weight: Weight of the similarity between classes in the choice of channels; the rest goes to
            the variance of the class weights.
        gamma: Exponent of the weight of a vote, before a search.
        gamma_scale: End of the grid of gamma that is searched, from 0 on.
        gamma_steps: Number of values in it.
    """

    channel_share: float = Field(default=0.7, gt=0, le=1)
    similarity_weight: float = Field(default=0.7, ge=0, le=1)
    gamma: float = Field(default=0.1, ge=0)
    gamma_scale: float = Field(default=0.5, gt=0)
    gamma_steps: int = Field(default=5, ge=1)

    def gammas(self) -> list[float]:
        """Values of gamma that are searched: `i · scale / steps` for i from 0, as in APE's code."""
        if self.gamma_steps == 1:
            return [self.gamma]
        return [index * self.gamma_scale / self.gamma_steps for index in range(self.gamma_steps)]

    def axes(self) -> dict[str, list[float]]:
        """Values of gamma, beta and alpha that are searched."""
        return {"gamma": self.gammas(), **super().axes()}

    def num_channels(self, width: int) -> int:
        """Number of channels that are kept."""
        return max(1, round(self.channel_share * width))


@register_head
class APEConfig(PrunedCacheConfig):
    """Adaptive prior refinement, without training."""

    method: Literal["ape"] = "ape"


class APE(TipAdapter):
    """`z = scale · f W + alpha · Σ_{j in class} exp(gamma KL_j) · exp(-beta (1 - f'·F'_j))`.

    A prime marks features cut down to the kept channels and normalised again. `KL_j` is the divergence, in bits, of the
    key's label from the softmax of its cosines with the class weights.

    Source: Zhu et al. 2023 (Not all features matter), sections 3.2 and 3.3, and its code. Differences: the similarity
    between classes comes in closed form from means of classes of any size, where the code loops over pairs; keys are
    means of normalised views, where the code averages raw ones; channels are a share of the width, where its
    configurations name a number for each data set. Ties in accuracy are broken by cross-entropy; the code takes the
    first, as `selected_on="paper"` does here.
    """

    config_class: ClassVar[type[HeadConfig]] = APEConfig
    channels: Tensor

    def build(self, num_samples: int) -> None:
        """Make an empty cache of the kept channels."""
        kept = self.config.num_channels(self.width)
        self.cache = KeyCache(num_samples, kept, self.num_classes)
        self.register_buffer("channels", torch.zeros(kept, dtype=torch.int64))
        self.selected = {"alpha": self.config.alpha, "beta": self.config.beta, "gamma": self.config.gamma}

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Choose the channels, and cache the features on them."""
        keys, share = samples.mean(), self.config.similarity_weight
        order = channel_order(self.class_weights, keys, samples.labels, share)
        self.channels = order[: self.config.num_channels(self.width)]
        self.cache = KeyCache.of(self._pruned(keys), samples.labels, self.num_classes)

    def _pruned(self, features: Tensor) -> Tensor:
        return functional.normalize(features[:, self.channels], dim=-1)

    def _queries(self, features: Tensor) -> Tensor:
        return self._pruned(features)

    def _key_weights(self, gamma: float | None = None) -> Tensor:
        cosines = self.cache.keys @ self._pruned(self.class_weights).T
        divergence = label_divergence(cosines, self.cache.labels)
        weights = ((self.selected["gamma"] if gamma is None else gamma) * divergence).exp()
        return weights * self.cache.balance() if self.config.balance_classes else weights

    def scores(self, features: Tensor) -> Tensor:
        """The class names' logits and the votes of the pruned keys."""
        sums = self._class_sums(self._queries(features), self.selected["beta"], self._key_weights())
        return sums * self.selected["alpha"] + self.zero_shot(features)

    def add_classes(self, class_weights: Tensor, features: Tensor, labels: Tensor) -> None:
        """Refused: channels are chosen for the classes a head has.

        Raises:
            FewShotError: Always.
        """
        raise FewShotError(
            f"`add_classes` must be called on a head that keeps all channels, but {type(self).__name__} chose its "
            "channels for the classes it has. Fit it again with all classes."
        )


def channel_order(class_weights: Tensor, keys: Tensor, labels: Tensor, similarity_weight: float) -> Tensor:
    """Channels from the most to the least telling, by `J = -w S + (1 - w) V`, int64, shape (width,).

    S is the mean product over pairs of different classes, each the mean of its text feature and its keys; V is the
    variance of the class weights over classes.
    """
    classes, held = len(class_weights), labels.to(torch.int64)
    counts = torch.bincount(held, minlength=classes).to(class_weights.dtype) + 1
    means = class_weights.index_add(0, held, keys) / counts[:, None]
    similarity = (means.sum(0).square() - means.square().sum(0)) / max(1, classes * (classes - 1))
    variance = class_weights.var(0, unbiased=classes > 1)
    return (similarity_weight * similarity - (1 - similarity_weight) * variance).argsort(stable=True)


def label_divergence(cosines: Tensor, labels: Tensor) -> Tensor:
    """Divergence of one-hot labels from the softmax of their keys' cosines with the classes, in bits, shape (keys,)."""
    own = cosines.softmax(-1).gather(1, labels.to(torch.int64)[:, None])[:, 0]
    return torch.log2((1 + _EPSILON) / (own + _EPSILON))
