"""CLAP: a linear probe that starts as zero-shot and is held there, each class by how well zero-shot knows it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head


@register_head
class CLAPConfig(TrainingOptions, HeadConfig):
    """CLAP, which needs no validation samples, since it keeps the last epoch.

    Args:
        constraint: `class` holds each class by how well zero-shot knows it, `mean` holds all classes by the average,
            and `none` holds none.
    """

    method: Literal["clap"] = "clap"
    optimizer: Literal["adamw", "adam", "sgd"] = "sgd"
    learning_rate: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    epochs: int = Field(default=300, ge=0)
    warmup_epochs: int = Field(default=1, ge=0)
    select_epoch: bool = False
    constraint: Literal["class", "mean", "none"] = "class"

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """One vector per class."""
        return num_classes * width


class CLAP(FewShotHead):
    """`z = scale · f norm(P)`, trained by `cross-entropy + mean_c λ_c ‖P_c - W_c‖²` from `P = W` on.

    `λ_c` is the mean probability that zero-shot gives to class c for its own samples.

    Source: Silva-Rodríguez et al., CVPR 2024 (CLAP), and its code. Differences: W holds unit vectors, where the code
    starts from text features of any length; an epoch takes one random view of each sample, where the code takes all 20
    as samples of their own; the multipliers stay as they start, as in the code's configuration `l2`.
    """

    config_class = CLAPConfig
    prototypes: nn.Parameter

    def build(self, num_samples: int) -> None:
        """Start as zero-shot."""
        self.prototypes = nn.Parameter(self.class_weights.detach().clone(), requires_grad=False)

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train the prototypes."""
        held = self.multipliers(samples)

        def loss(features: Tensor, labels: Tensor) -> Tensor:
            distances = (self.prototypes - self.class_weights).square().sum(-1)
            return functional.cross_entropy(self.scores(features), labels) + (held * distances).mean()

        train_head(self, [self.prototypes], samples, self.config, validation=validation, seed=seed, loss=loss)

    def multipliers(self, samples: Samples) -> Tensor:
        """How strongly each class is held, over all views, shape (classes,); 0 for a class without samples."""
        if self.config.constraint == "none":
            return torch.zeros_like(self.class_weights[:, 0])
        with torch.no_grad():
            logits = self.config.logit_scale * (samples.views @ self.class_weights.T)
            known = logits.softmax(-1).mean(0).gather(1, samples.labels[:, None])[:, 0]
            count = torch.bincount(samples.labels, minlength=self.num_classes).clamp(min=1)
            held = torch.zeros_like(self.class_weights[:, 0]).index_add_(0, samples.labels, known) / count
        return held if self.config.constraint == "class" else held.mean().expand_as(held)

    def scores(self, features: Tensor) -> Tensor:
        """The cosine with the prototypes."""
        return self.config.logit_scale * (features @ functional.normalize(self.prototypes, dim=-1).T)
