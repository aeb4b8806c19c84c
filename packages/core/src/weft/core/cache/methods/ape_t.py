"""APE-T: APE with one trained residual per class and one trained weight per key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.cache.methods.ape import APE, PrunedCacheConfig
from weft.core.cache.model import register_head
from weft.core.cache.samples import Samples
from weft.core.cache.training import TrainingOptions, train_head


@register_head
class APETConfig(TrainingOptions, PrunedCacheConfig):
    """APE-T's own defaults: AdamW with decay 0.1, rate 0.001."""

    method: Literal["ape_t"] = "ape_t"
    weight_decay: float = Field(default=0.1, ge=0)
    epsilon: float = Field(default=1e-3, gt=0)

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """A residual per class on the kept channels, and a weight per key."""
        return num_classes * self.num_channels(width) + num_samples


class APET(APE):
    """APE whose class weights and keys share a residual per class, `W_c + r_c` and `F_j + r_{y_j}`.

    The weight of every vote is trained too, from one on.

    Source: Zhu et al. 2023 (Not all features matter), section 3.4.
    """

    config_class = APETConfig
    residual: nn.Parameter
    value_weights: nn.Parameter

    def build(self, num_samples: int) -> None:
        """Make a residual of zeros and vote weights of one."""
        super().build(num_samples)
        kept = self.config.num_channels(self.width)
        self.residual = nn.Parameter(torch.zeros(self.num_classes, kept), requires_grad=False)
        self.value_weights = nn.Parameter(torch.ones(num_samples), requires_grad=False)

    def _fit(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        super()._fit(samples, validation, seed)
        trained = [self.residual, self.value_weights]
        train_head(self, trained, samples, self.config, validation=validation, seed=seed)

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits of the class weights with their residual, shape (rows, classes)."""
        if not hasattr(self, "residual"):
            return super().zero_shot(features)
        weights = self.class_weights.index_add(1, self.channels, self.residual)
        return self.config.logit_scale * (features @ functional.normalize(weights, dim=-1).T)

    def _used_keys(self) -> Tensor:
        shifted = self.cache.keys + self.residual[self.cache.labels.to(torch.int64)]
        return functional.normalize(shifted, dim=-1)

    def _key_weights(self) -> Tensor:
        return super()._key_weights() * self.value_weights

    def remove_classes(self, classes: Sequence[int]) -> None:
        """Remove classes with their keys, residuals and vote weights; see `TipAdapter.remove_classes`."""
        gone = set(classes)
        keep = [number for number in range(self.num_classes) if number not in gone]
        rows = self.cache.kept_by(keep)
        super().remove_classes(classes)
        self.residual = nn.Parameter(self.residual[keep], requires_grad=False)
        self.value_weights = nn.Parameter(self.value_weights[rows], requires_grad=False)


APETConfig.head = APET
