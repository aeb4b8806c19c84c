"""LP++: a linear probe that blends in the class names by learned factors, with step sizes from the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.samples import Samples


@register_head
class LPPlusPlusConfig(HeadConfig):
    """LP++ with full-batch gradient descent.

    Args:
        epochs: Steps of the class vectors.
        momentum: Momentum of these steps.
        blend_every: Steps between updates of the blending factors.
        initial_blend: Where the factors start, as a multiple of the mean similarity of samples with their class name.
        bias: Train a bias per class, as the released code does.
        blend_gradient: What moves the factors: the gradients of all steps so far (`accumulated`), as in the released
            code, which never clears them; or that of the current step (`step`), as in the paper's formula.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"bias": False, "blend_gradient": "step"}

    method: Literal["lp_plus_plus"] = "lp_plus_plus"
    epochs: int = Field(default=300, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    blend_every: int = Field(default=10, gt=0)
    initial_blend: float = Field(default=250.0, ge=0)
    bias: bool = True
    blend_gradient: Literal["accumulated", "step"] = "accumulated"

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """A vector, a blending factor and, if it is trained, a bias per class."""
        return num_classes * (width + 1 + self.bias)


class LPPlusPlus(FewShotHead):
    """`z = f (w_c + a_c t_c) + b_c`, with t the class weights and no logit scale.

    A class vector starts as the sum of its class's features, and steps by `4 m / lambda_max(F F^T)` for m features; the
    factors start at a multiple of the mean similarity, and step by `m / (4 max_c Σ_i (f_i · t_c)²)`. Both step sizes
    come from bounds on the curvature of the loss, so that no rate need be chosen. Biases start as in a linear layer of
    PyTorch and step with the class vectors. Of equally accurate epochs the last is kept.

    Source: Huang et al. 2024 (LP++), sections 3 and 4, as its code has it; the paper has no bias. Differences: classes
    may have any number of samples; without validation samples the last epoch is kept.
    """

    config_class = LPPlusPlusConfig
    weight: nn.Parameter
    blend: nn.Parameter
    bias: nn.Parameter

    def build(self, num_samples: int) -> None:
        """Make class vectors, factors and biases of zeros."""
        self.weight = nn.Parameter(torch.zeros(self.num_classes, self.width), requires_grad=False)
        self.blend = nn.Parameter(torch.zeros(self.num_classes), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(self.num_classes), requires_grad=False)

    def optional_tensors(self) -> tuple[str, ...]:
        """The biases, where they are not trained and hence zero."""
        return () if self.config.bias else ("bias",)

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Step the class vectors, and every few steps the blending factors."""
        features, labels = samples.flat()
        similarity = features @ self.class_weights.T
        self._start(features, labels, similarity)
        rate = 4 * len(features) / torch.linalg.matrix_norm(features, ord=2).square()
        blend_rate = len(features) / (4 * similarity.square().sum(0).max())
        trained = (self.weight, self.bias)
        velocities = [torch.zeros_like(value) for value in trained]
        blend_gradient = torch.zeros_like(self.blend)
        truth = functional.one_hot(labels, self.num_classes).to(features)
        best = -math.inf
        kept: list[Tensor] = []
        for epoch in range(self.config.epochs):
            error = (self._blended(features, similarity).softmax(-1) - truth) / len(features)
            gradients = [error.T @ features, error.sum(0) * self.config.bias]
            for value, velocity, gradient in zip(trained, velocities, gradients, strict=True):
                velocity.mul_(self.config.momentum).add_(gradient)
                value.data.sub_(rate * velocity)
            own = (error * similarity).sum(0)
            blend_gradient = own if self.config.blend_gradient == "step" else blend_gradient + own
            if (epoch + 1) % self.config.blend_every == 0:
                self.blend.data.sub_(blend_rate * blend_gradient)
            if validation is not None:
                score, _ = validation.score(self.scores(validation.mean()), self.config.select_by)
                if score >= best:
                    best, kept = score, [value.clone() for value in (*trained, self.blend)]
        for value, chosen in zip((*trained, self.blend), kept, strict=bool(kept)):
            value.data.copy_(chosen)

    def _start(self, features: Tensor, labels: Tensor, similarity: Tensor) -> None:
        self.weight.data.zero_().index_add_(0, labels, features)
        if self.config.bias:
            nn.init.uniform_(self.bias, -(self.width**-0.5), self.width**-0.5)
        own = similarity.gather(1, labels[:, None])[:, 0]
        counts = torch.bincount(labels, minlength=self.num_classes)
        means = torch.zeros_like(self.blend).index_add(0, labels, own) / counts.clamp(min=1)
        self.blend.data.fill_(float(self.config.initial_blend * means[counts > 0].mean()))

    def scores(self, features: Tensor) -> Tensor:
        """The logits of the blended class vectors."""
        return self._blended(features, features @ self.class_weights.T)

    def _blended(self, features: Tensor, similarity: Tensor) -> Tensor:
        return features @ self.weight.T + similarity * self.blend + self.bias
