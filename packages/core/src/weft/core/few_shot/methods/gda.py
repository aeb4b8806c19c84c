"""GDA: a Gaussian per class with one shared covariance, in closed form, added to the zero-shot logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from weft.core.few_shot.grid import Grid
from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import CLIP_SCALE, WIDENINGS, Axes, HeadConfig, register_head
from weft.core.few_shot.samples import Samples

_POWERS = range(-4, 3)


@register_head
class GDAConfig(HeadConfig):
    """Gaussian discriminant analysis beside zero-shot logits.

    Args:
        alpha: Weight of the Gaussian classifier, before a search.
        alphas: Values that are searched, ascending. By default `10^-4` to `10^2`, times `logit_scale / 100`, and
            beyond while the best lies at an end.
    """

    method: Literal["gda"] = "gda"
    alpha: float = Field(default=1.0, ge=0)
    alphas: tuple[float, ...] | None = None

    def axes(self) -> dict[str, Sequence[float]]:
        """Values of alpha that are searched."""
        factor = self.logit_scale / CLIP_SCALE
        return {"alpha": self.alphas or [factor * 10.0**power for power in _POWERS]}

    def widenings(self) -> int:
        """How often a search widens its grid at most."""
        return WIDENINGS if self.alphas is None else 0


class GDA(FewShotHead):
    """`z = scale · f W + alpha (f M + b)`, with `M = P mu_c` and `b = log(1/C) - mu_c P mu_c / 2`.

    The precision is `P = d · pinv((m - 1) S + tr(S) I)`, with S the covariance within classes over all m views of
    all samples. A class without samples has no mean and keeps its zero-shot logit.

    Source: Wang et al. 2024 (A hard-to-beat baseline for training-free CLIP-based adaptation), eq. 5 to 8.
    """

    config_class = GDAConfig
    weight: Tensor
    bias: Tensor

    def build(self, num_samples: int) -> None:
        """Make a classifier of zeros."""
        self.register_buffer("weight", torch.zeros(self.num_classes, self.width))
        self.register_buffer("bias", torch.zeros(self.num_classes))
        self.selected = {"alpha": self.config.alpha}

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Compute means and precision."""
        features, labels = replace(samples, dtype=torch.float64).flat()
        counts = torch.bincount(labels, minlength=self.num_classes)
        means = features.new_zeros(self.num_classes, self.width).index_add(0, labels, features)
        means = means / counts.clamp(min=1).double()[:, None]
        centred = features - means[labels]
        scatter = centred.T @ centred  # (m - 1) S
        spread = scatter.trace() / (max(2, len(features)) - 1)
        precision = self.width * torch.eye(self.width, dtype=torch.float64, device=features.device)
        if float(spread) != 0:  # it is 0 for one view of one shot
            ridge = spread * torch.eye(self.width, dtype=torch.float64, device=features.device)
            precision = self.width * torch.linalg.pinv(scatter + ridge, hermitian=True)
        weight = means @ precision
        bias = -math.log(self.num_classes) - 0.5 * (weight * means).sum(1)
        self.weight.copy_(weight)
        self.bias.copy_(torch.where(counts > 0, bias, 0))

    def scores(self, features: Tensor) -> Tensor:
        """The class names' logits and the Gaussian classifier's."""
        return self.zero_shot(features) + self.selected["alpha"] * self._gaussian(features)

    def _gaussian(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias

    def grid(self, features: Tensor, axes: Axes) -> Grid:
        """Values of alpha."""
        return Grid([{}], lambda rows: self._gaussian(features[rows])[None], axes["alpha"])
