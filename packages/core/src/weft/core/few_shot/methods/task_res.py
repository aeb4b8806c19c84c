"""TaskRes: a residual that is added to the class weights."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.training import TrainedHead, TrainingOptions


@register_head
class TaskResConfig(TrainingOptions, HeadConfig):
    """TaskRes; the paper trains for 100 epochs with up to 4 shots and 200 with more, and at 0.0002 on ImageNet.

    Args:
        scale: Factor of the residual (Flowers102: 1).
    """

    method: Literal["task_res"] = "task_res"
    optimizer: Literal["adamw", "adam", "sgd"] = "adam"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    epochs: int = Field(default=100, ge=0)
    warmup_epochs: int = Field(default=1, ge=0)
    scale: float = Field(default=0.5, gt=0)

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """One vector per class."""
        return num_classes * width


class TaskRes(TrainedHead):
    """`z = scale · f norm(W + s · X)`, where X starts as zero.

    Source: Yu et al. 2023 (TaskRes), eq. 5. Difference: W holds unit vectors, where the code adds X to means of text
    features of any length.
    """

    config_class = TaskResConfig
    residual: nn.Parameter

    def build(self, num_samples: int) -> None:
        """Make a residual of zeros."""
        self.residual = nn.Parameter(torch.zeros(self.num_classes, self.width), requires_grad=False)

    def scores(self, features: Tensor) -> Tensor:
        """The cosine with the moved class weights."""
        weights = functional.normalize(self.class_weights + self.config.scale * self.residual, dim=-1)
        return self.config.logit_scale * (features @ weights.T)
