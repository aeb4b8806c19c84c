"""APE-T: a cache with one trained residual per class, on the channels of APE, and one trained weight per key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head_config import register_head
from weft.core.few_shot.keys import KeyCache
from weft.core.few_shot.methods.ape import APE, PrunedCacheConfig
from weft.core.few_shot.methods.tip_adapter import CacheHeadConfig, TipAdapter
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head


@register_head
class APETConfig(TrainingOptions, PrunedCacheConfig):
    """APE-T: AdamW at 0.001 with a decay of 0.1, and a choice of channels that weighs the variance most.

    Args:
        keys: `whole`, keys of all channels and votes without APE's weights, as in the released code; or `pruned`, as
            APE's, with keys and class weights normalised again and votes weighted by `gamma` too.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"keys": "pruned"}

    method: Literal["ape_t"] = "ape_t"
    similarity_weight: float = Field(default=0.2, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    epsilon: float = Field(default=1e-3, gt=0)
    keys: Literal["whole", "pruned"] = "whole"

    def axes(self) -> dict[str, list[float]]:
        """Values of beta and alpha that are searched, and of gamma where votes are weighted by it."""
        return CacheHeadConfig.axes(self) if self.keys == "whole" else super().axes()

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """A residual per class on the kept channels, and a weight per key."""
        return num_classes * self.num_channels(width) + num_samples


class APET(APE):
    """Class weights and keys share a residual per class, on the channels that APE keeps.

    `z = scale · f (W + r) + alpha · Σ_{j in class} w_j · exp(-beta (1 - f·(F_j + r)))`

    The weights `w_j` of the votes are trained too and start at one. Keys and class weights keep all channels, and are
    not normalised again.

    Source: Zhu et al. 2023 (Not all features matter), section 3.4, as its code has it. Differences: keys and channels
    are those of `APE` (the released code fails where the residual has another number of channels than APE); features
    have single precision, there half; ties in validation accuracy are broken by cross-entropy, where the code keeps the
    first epoch. `keys="pruned"`, whose votes are those of APE, is ours: at step 0 it is APE.
    """

    config_class = APETConfig
    residual: nn.Parameter
    value_weights: nn.Parameter

    @property
    def _whole(self) -> bool:
        return bool(self.config.keys == "whole")

    def build(self, num_samples: int) -> None:
        """Make a residual of zeros and vote weights of one."""
        super().build(num_samples)
        if self._whole:
            self.cache = KeyCache(num_samples, self.width, self.num_classes)
            del self.selected["gamma"]
        kept = self.config.num_channels(self.width)
        self.residual = nn.Parameter(torch.zeros(self.num_classes, kept), requires_grad=False)
        self.value_weights = nn.Parameter(torch.ones(num_samples), requires_grad=False)

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train the residual and the vote weights on the channels of APE."""
        super().fit_samples(samples, validation, seed)
        if self._whole:
            self.cache = KeyCache.of(samples.mean(), samples.labels, self.num_classes)
        trained = [self.residual, self.value_weights]
        train_head(self, trained, samples, self.config, validation=validation, seed=seed)

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits of the class weights with their residual, shape (rows, classes)."""
        if not hasattr(self, "residual"):
            return super().zero_shot(features)
        weights = self.class_weights.index_add(1, self.channels, self.residual)
        if not self._whole:
            weights = functional.normalize(weights, dim=-1)
        return self.config.logit_scale * (features @ weights.T)

    def _queries(self, features: Tensor) -> Tensor:
        return features if self._whole else super()._queries(features)

    def _used_keys(self) -> Tensor:
        shift = self.residual[self.cache.labels.to(torch.int64)]
        if self._whole:
            return self.cache.keys.index_add(1, self.channels, shift)
        return functional.normalize(self.cache.keys + shift, dim=-1)

    def _key_weights(self, gamma: float | None = None) -> Tensor:
        if not self._whole:
            return super()._key_weights(gamma) * self.value_weights
        balance = TipAdapter._key_weights(self)
        return self.value_weights if balance is None else self.value_weights * balance

    def _keep_classes(self, keep: list[int]) -> None:
        rows = self.cache.kept_by(keep)
        super()._keep_classes(keep)
        self.residual = nn.Parameter(self.residual[keep], requires_grad=False)
        self.value_weights = nn.Parameter(self.value_weights[rows], requires_grad=False)
