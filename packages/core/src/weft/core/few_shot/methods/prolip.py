"""ProLIP: the last map of the image side is fine-tuned, and held to what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.image_head import Adaptable, ImageHead
from weft.core.few_shot.projection import VisualProjection
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head


@register_head
class ProLIPConfig(TrainingOptions, HeadConfig):
    """ProLIP, which needs no validation samples, since it keeps the last epoch.

    Args:
        penalty: Factor of the squared distance to the pretrained map; by default one over the shots.
    """

    method: Literal["prolip"] = "prolip"
    optimizer: Literal["adamw", "adam", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=1e-4, gt=0)
    epochs: int = Field(default=300, ge=0)
    batch_size: int = Field(default=1_000_000, gt=0)
    select_epoch: bool = False
    penalty: float | None = Field(default=None, ge=0)

    def trained_within(self, model: nn.Module) -> int:
        """The map."""
        return VisualProjection.weight_of(model).numel()


class ProLIP(ImageHead):
    """`z = scale · norm(P x + b) W`, trained by `cross-entropy + λ ‖P - P_0‖²` from the encoder's own `P_0` on.

    `x`, the input of the map, is computed once for each image, so that training takes no further pass of the encoder.

    Source: Fahes et al. 2024 (ProLIP, arXiv 2410.05270), and its code (github.com/astra-vision/ProLIP), which gives
    Adam with an epsilon of 1e-4, 300 epochs over all images at once, and λ = 1/K without validation images; of the
    rates that the code compares, 1e-5 is that of its base configuration. Differences: an epoch takes one random view
    of each image, where the code saves one for every epoch; rate and λ are not searched.
    """

    config_class = ProLIPConfig
    projection: nn.Parameter
    bias: Tensor

    def build(self, num_samples: int) -> None:
        """Start from the encoder's own map."""
        super().build(num_samples)
        own = self.required().projection()
        self._hold(own.weight.cpu(), torch.zeros(len(own.weight)) if own.bias is None else own.bias.cpu())

    def build_like(self, num_samples: int, tensors: Mapping[str, Tensor]) -> None:
        """Make room for the map of a file, whose width only the encoder knows."""
        super().build(num_samples)
        width = tensors["projection"].shape[-1] if "projection" in tensors else 0
        self._hold(torch.zeros(self.width, width), torch.zeros(self.width))

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train the map on its inputs."""
        start, penalty = self.projection.detach().clone(), self.config.penalty
        factor = self.num_classes / len(samples) if penalty is None else penalty

        def loss(inputs: Tensor, labels: Tensor) -> Tensor:
            distance = (self.projection - start).square().sum()
            return functional.cross_entropy(self.scores(inputs), labels) + factor * distance

        drawn, chosen_by = self.made_before(samples, validation, self.required().projection().before)
        train_head(self, [self.projection], drawn, self.config, validation=chosen_by, seed=seed, loss=loss)

    def image_features(self, adaptable: Adaptable, pixel_values: Tensor) -> Tensor:
        """Unit features of images, or of the map's inputs (images, width of the tower), through the trained map."""
        read = pixel_values if pixel_values.dim() == 2 else adaptable.projection().before(pixel_values)
        return functional.normalize(read.to(self.projection) @ self.projection.T + self.bias, dim=-1)

    def _hold(self, weight: Tensor, bias: Tensor) -> None:
        self.projection = nn.Parameter(weight.clone(), requires_grad=False)
        self.register_buffer("bias", bias.clone())
