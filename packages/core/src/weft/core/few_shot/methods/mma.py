"""MMA: adapters in the upper layers of both towers, joined by a small map that the towers share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from weft.core.few_shot.adapted_head import AdaptedHead, AdaptedHeadConfig
from weft.core.few_shot.head_config import register_head
from weft.core.few_shot.training import TrainingOptions
from weft.core.units.mma import MMAConfig


@register_head
class MMAHeadConfig(AdaptedHeadConfig):
    """MMA: five epochs of SGD.

    Args:
        bottleneck_size: Width of the shared map.
        scale: Factor of an adapter's output, by which the gradients within it are divided.
        upper: Number of adapted layers in each tower, from the last down.
        init: `identity` starts as zero-shot; `repo` draws the last matrix like the others, as the code does.
    """

    method: Literal["mma"] = "mma"
    optimizer: Literal["adamw", "adam", "sgd"] = "sgd"
    learning_rate: float = Field(default=1.5e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    epochs: int = Field(default=5, ge=0)
    batch_size: int = Field(default=16, gt=0)
    bottleneck_size: int = Field(default=32, ge=1)
    scale: float = Field(default=0.001, gt=0)
    upper: int = Field(default=8, ge=1)
    init: Literal["identity", "repo"] = "identity"

    def units(self) -> Any:
        """MMA in the upper layers."""
        return MMAConfig(
            bottleneck_size=self.bottleneck_size,
            scale=self.scale,
            upper=self.upper,
            init=self.init,
            towers=self.towers,
        )


class MMAHead(AdaptedHead):
    """`z = scale · f' g'`, trained by cross-entropy, with the unit `mma` in the upper layers.

    Gradients within an adapter are those of a factor of one, so that SGD steps by the rate divided by the factor.

    Source: Yang et al., CVPR 2024 (MMA), and its code (github.com/ZjjConan/Multi-Modal-Adapter), which gives width 32,
    layers 5 to 12 of 12, a factor of 0.001, and five epochs of SGD at 0.0015 along a cosine in batches of 16. It leaves
    the weight decay to its training library; we take 0.0005, which is not verified. Differences: the last matrix starts
    at zero unless `init` says otherwise; class names are read in the given templates, there in `a photo of a NAME.`.
    """

    config_class = MMAHeadConfig

    def options(self) -> TrainingOptions:
        """The options; for SGD with the rate divided by the factor, which Adam's steps do not depend on."""
        config: MMAHeadConfig = self.config
        if config.optimizer != "sgd":
            return config
        rate, decay = config.learning_rate / config.scale, config.weight_decay * config.scale
        return config.model_copy(update={"learning_rate": rate, "weight_decay": decay})
