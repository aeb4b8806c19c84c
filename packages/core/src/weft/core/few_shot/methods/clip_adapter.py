"""CLIP-Adapter: a small residual network on the image feature."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.training import TrainedHead, TrainingOptions


@register_head
class CLIPAdapterConfig(TrainingOptions, HeadConfig):
    """CLIP-Adapter, with CoOp's schedule, which its code takes.

    Args:
        reduction_factor: Width of the features divided by that of the hidden layer.
        ratio: Share of the network's output in the new feature.
    """

    method: Literal["clip_adapter"] = "clip_adapter"
    optimizer: Literal["adamw", "adam", "sgd"] = "sgd"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    epochs: int = Field(default=200, ge=0)
    batch_size: int = Field(default=32, gt=0)
    warmup_epochs: int = Field(default=1, ge=0)
    reduction_factor: int = Field(default=4, gt=0)
    ratio: float = Field(default=0.2, ge=0, le=1)

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """Two matrices without bias."""
        return 2 * width * max(1, width // self.reduction_factor)


class CLIPAdapter(TrainedHead):
    """`z = scale · norm(ratio · a + (1 - ratio) · f) W` with `a = relu(relu(f W_1) W_2)`.

    The original reads raw features. Since the network has no bias, it scales with its input, and unit features give the
    same direction.

    Source: Gao et al. 2021 (CLIP-Adapter), eq. 5 and 6, the visual adapter.
    """

    config_class = CLIPAdapterConfig

    def build(self, num_samples: int) -> None:
        """Make the network."""
        hidden = max(1, self.width // self.config.reduction_factor)
        self.adapter = nn.Sequential(
            nn.Linear(self.width, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, self.width, bias=False),
            nn.ReLU(),
        )

    def adapted(self, features: Tensor) -> Tensor:
        """The features mixed with the network's output, normalised."""
        ratio = self.config.ratio
        return functional.normalize(ratio * self.adapter(features) + (1 - ratio) * features, dim=-1)

    def scores(self, features: Tensor) -> Tensor:
        """Zero-shot logits of the adapted features."""
        return self.zero_shot(self.adapted(features))
