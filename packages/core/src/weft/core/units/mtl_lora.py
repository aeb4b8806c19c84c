"""MTL-LoRA: one low-rank update for all tasks, transformed and mixed for each.

Source: Yang et al. 2024, "MTL-LoRA: Low-Rank Adaptation for Multi-Task Learning", and its code for how it starts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.sharing import NONE
from weft.core.unit.initialisers import eye, fan_in, uniform, zeros
from weft.core.unit.protocol import TensorSpec, Unit, Weights, register_unit
from weft.core.units.lora import LoRA, LowRankUpdateConfig

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class MTLLoRAConfig(LowRankUpdateConfig):
    """`y = x W + b + scale · dropout(x) A T Σ m_i B_i` with `m = softmax(w / temperature)`.

    `A` and the `B_i`, which start at zero, are for all tasks; the square matrix `T`, which starts as the identity, and
    the numbers `w` are each task's own.

    Args:
        ups: Number of matrices `B_i`.
        temperature: Divisor of `w`; the smaller, the more one `B_i` stands out.

    Parts: `down` (`A`), `up` (all `B_i`), `transform` (`T`) and `mix` (`w`).
    """

    parts = ("down", "up", "transform", "mix")

    method: Literal["mtl_lora"] = "mtl_lora"
    ups: int = Field(default=3, ge=1)
    temperature: float = Field(default=1.0, gt=0)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """`down` `(in, rank)`, `transform` `(rank, rank)`, `up` `(ups, rank, out)` and `mix` `(ups,)`."""
        return (
            TensorSpec("down.weight", (site.in_width, self.rank), fan_in(site.in_width), "down"),
            TensorSpec("up.weight", (self.ups, self.rank, site.width), zeros, "up"),
            TensorSpec("transform", (self.rank, self.rank), eye, "transform", default=NONE),
            TensorSpec("mix", (self.ups,), uniform(1 / math.sqrt(self.ups)), "mix", default=NONE),
        )

    def build(self, site: Site) -> MTLLoRA:
        """The computation at a linear map."""
        return MTLLoRA(self, site)


class MTLLoRA(LoRA[MTLLoRAConfig]):
    """The computation: LoRA whose `up` of each task is `T Σ m_i B_i`."""

    linear_in = frozenset(("down.weight", "transform", "up.weight"))
    combine = Unit.combine

    def matrices(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """`A`, and what follows it, shapes `(slots, in, rank)` and `(slots, rank, out)`."""
        shares = (weights["mix"] / self.config.temperature).softmax(dim=-1)
        ups = weights["up.weight"]
        mixed = (shares[:, None] @ ups.flatten(2)).view(-1, *ups.shape[2:])
        return weights["down.weight"], weights["transform"] @ mixed
