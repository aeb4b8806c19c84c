"""UniAdapter on CLIP: one bottleneck for both towers of a layer, trained with the class names as classifier."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from weft.core.few_shot.adapted_head import AdaptedHead, AdaptedHeadConfig
from weft.core.few_shot.head_config import register_head
from weft.core.units.uniadapter import UniAdapterConfig


@register_head
class UniAdapterHeadConfig(AdaptedHeadConfig):
    """UniAdapter on a dual encoder.

    Args:
        bottleneck_size: Width of the bottleneck.
        core: Let the towers share a square matrix within the bottleneck, so that their widths may differ, as CLIP's do;
            else they share the down-projection itself.
        scale: Factor of every branch.
    """

    method: Literal["uniadapter"] = "uniadapter"
    learning_rate: float = Field(default=1e-3, gt=0)
    steps_per_shot: int | None = Field(default=500, ge=0)
    bottleneck_size: int = Field(default=64, ge=1)
    core: bool = True
    scale: float = 0.1

    def units(self) -> Any:
        """UniAdapter in parallel to the feed-forward blocks."""
        return UniAdapterConfig(
            bottleneck_size=self.bottleneck_size,
            branches=self.towers,
            towers=self.towers,
            core=self.core,
            scale=self.scale,
        )


class UniAdapterHead(AdaptedHead):
    """`z = scale · f' g'`, trained by cross-entropy, with UniAdapter beside the feed-forward blocks of both towers.

    Source: the unit is that of Lu et al., ICLR 2024 (UniAdapter), who adapt BLIP, neither CLIP nor few-shot
    classifiers: the places of its parts in a dual encoder, the shared core (after MMA, Yang et al., CVPR 2024) and the
    training, that of `clip_lora` at a higher rate, are our choices. A dual encoder has no cross-attention, and hence
    neither the cross-modal branch nor the query-residual.
    """

    config_class = UniAdapterHeadConfig
