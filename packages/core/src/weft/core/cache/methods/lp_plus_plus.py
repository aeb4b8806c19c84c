"""LP++: a linear probe that blends class names in by learned factors, with steps sized from the data."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.cache.model import FewShotHead, HeadConfig, accuracy, register_head
from weft.core.cache.samples import Samples


@register_head
class LPPlusPlusConfig(HeadConfig):
    """LP++ with full-batch gradient descent.

    Args:
        epochs: Steps of the class vectors.
        momentum: Momentum of these steps.
        blend_every: Steps between updates of the blending factors.
        initial_blend: Factor of the mean similarity of a class with its name, from which the factors start.
    """

    method: Literal["lp_plus_plus"] = "lp_plus_plus"
    epochs: int = Field(default=300, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    blend_every: int = Field(default=10, gt=0)
    initial_blend: float = Field(default=250.0, ge=0)

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """A vector and a blending factor per class."""
        return num_classes * (width + 1)


class LPPlusPlus(FewShotHead):
    """`z = f (w_c + a_c t_c)`, with t the class weights and no logit scale.

    The class vectors start as the sum of the features of their class, and step by `4 m / lambda_max(F F^T)` for m
    features; the factors start as a multiple of the mean similarity, and step by `m / (4 max_c Σ_i (f_i · t_c)²)`.
    Both are bounds of the curvature of the loss, so there is no rate to choose.

    Source: Huang et al. 2024 (LP++), sections 3 and 4. Difference: the gradient of the factors is that of the
    step at hand; the code adds up those of all steps before.
    """

    config_class = LPPlusPlusConfig
    weight: nn.Parameter
    blend: nn.Parameter

    def build(self, num_samples: int) -> None:
        """Make class vectors and factors of zeros."""
        self.weight = nn.Parameter(torch.zeros(self.num_classes, self.width), requires_grad=False)
        self.blend = nn.Parameter(torch.zeros(self.num_classes), requires_grad=False)

    def _fit(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        features = samples.views.flatten(0, 1).to(self.class_weights)
        labels = samples.labels.to(torch.int64).to(features.device).repeat(samples.views.shape[0])
        similarity = features @ self.class_weights.T
        self._start(features, labels, similarity)
        largest = torch.linalg.matrix_norm(features, ord=2).square()
        rate = 4 * len(features) / largest
        blend_rate = len(features) / (4 * similarity.square().sum(0).max())
        velocity = torch.zeros_like(self.weight)
        best: tuple[float, float] | None = None
        kept = (self.weight.clone(), self.blend.clone())
        for epoch in range(self.config.epochs):
            probabilities = (features @ self.weight.T + similarity * self.blend).softmax(-1)
            error = probabilities - functional.one_hot(labels, self.num_classes).to(probabilities)
            velocity = self.config.momentum * velocity + error.T @ features / len(features)
            self.weight.data.sub_(rate * velocity)
            if (epoch + 1) % self.config.blend_every == 0:
                self.blend.data.sub_(blend_rate * (error * similarity).sum(0) / len(features))
            if validation is not None:
                score = accuracy(self._logits(validation.mean().to(self.class_weights)), validation.labels)
                if best is None or score > best:
                    best, kept = score, (self.weight.clone(), self.blend.clone())
        if best is not None:
            self.weight.data.copy_(kept[0])
            self.blend.data.copy_(kept[1])

    def _start(self, features: Tensor, labels: Tensor, similarity: Tensor) -> None:
        self.weight.data.zero_().index_add_(0, labels, features)
        own = similarity.gather(1, labels[:, None])[:, 0]
        counts = torch.bincount(labels, minlength=self.num_classes)
        means = torch.zeros_like(self.blend).index_add(0, labels, own) / counts.clamp(min=1)
        self.blend.data.fill_(float(self.config.initial_blend * means[counts > 0].mean()))

    def _logits(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + (features @ self.class_weights.T) * self.blend


LPPlusPlusConfig.head = LPPlusPlus
