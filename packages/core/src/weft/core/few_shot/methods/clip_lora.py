"""CLIP-LoRA: low-rank updates of the attention maps of both towers, trained with the class names as classifier."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from weft.core.few_shot.adapted_head import AdaptedHead, AdaptedHeadConfig
from weft.core.few_shot.head_config import register_head
from weft.core.unit.places import Role
from weft.core.units.lora import LoRAConfig


@register_head
class CLIPLoRAConfig(AdaptedHeadConfig):
    """CLIP-LoRA, whose settings are the same for every data set and number of images.

    Args:
        rank: Rank of the updates.
        alpha: Numerator of their scale `alpha / sqrt(rank)`.
        dropout: Probability of dropping an input of an update.
        linears: Maps that are updated in every layer. Towers without attention have `up` and `down`.
    """

    method: Literal["clip_lora"] = "clip_lora"
    steps_per_shot: int | None = Field(default=500, ge=0)
    rank: int = Field(default=2, ge=1)
    alpha: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.25, ge=0, lt=1)
    linears: tuple[Role, ...] = Field(default=("query", "key", "value"), min_length=1)

    def units(self) -> Any:
        """LoRA at the chosen maps."""
        return LoRAConfig(
            rank=self.rank,
            alpha=self.alpha,
            rank_stabilised=True,
            dropout=self.dropout,
            linears=self.linears,
            towers=self.towers,
        )


class CLIPLoRA(AdaptedHead):
    """`z = scale · f' g'`, trained by cross-entropy, with LoRA on queries, keys and values of every layer.

    Source: Zanella and Ben Ayed, CVPR Workshops 2024 (CLIP-LoRA), and its code (github.com/MaxZanella/CLIP-LoRA), which
    gives rank 2, alpha 1 over the root of the rank, dropout 0.25, AdamW at 2e-4 with a decay of 0.01, batches of 32
    and 500 steps per shot. Differences: class features are means over all given templates, where the code takes one;
    the rate falls to 0, there to 1e-6; nothing has half precision.
    """

    config_class = CLIPLoRAConfig
