"""The low-rank adapter: a bottleneck whose two matrices are products of two thin ones.

Source: the low-rank baseline of Compacter (Mahabadi et al. 2021), as the VL-Adapter code has it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Block, Site, SiteMap
from weft.core.unit.initialisers import xavier, zeros
from weft.core.unit.protocol import TensorSpec, Unit, UnitConfig, Weights, register_unit
from weft.core.units.bottleneck import Activation, bottleneck_width

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class LowRankConfig(UnitConfig):
    """`y = h + g(h L_down R_down + b) L_up R_up + c`.

    Args:
        bottleneck_size: Width of the bottleneck. Give this or `reduction_factor`.
        reduction_factor: The site's width divided by that of the bottleneck.
        rank: Rank of both matrices.
        activation: `g`.
        init: `zero` draws factors by Xavier with gain sqrt(2) and makes the last of the four zero, so that the model
            starts as the backbone; `xavier` draws all four, as the papers do.
        blocks: Sub-layers adapted; by default all there are.

    Parts: `down`, `up`.
    """

    parts = ("down", "up")
    start_fields = ("init",)

    method: Literal["low_rank"] = "low_rank"
    bottleneck_size: int | None = Field(default=None, ge=1)
    reduction_factor: int | None = Field(default=None, ge=1)
    rank: int = Field(default=1, ge=1)
    activation: Activation = "gelu_tanh"
    init: Literal["xavier", "zero"] = "zero"
    blocks: tuple[Block, ...] | None = None

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """For each half a left factor `(in, rank)`, a right factor `(rank, out)` and a bias."""
        size = bottleneck_width(site.width, self.bottleneck_size, self.reduction_factor)
        draw = xavier(math.sqrt(2))
        specs: list[TensorSpec] = []
        for half, inner, outer in (("down", site.width, size), ("up", size, site.width)):
            last = zeros if half == "up" and self.init == "zero" else draw
            specs += [
                TensorSpec(f"{half}.left", (inner, self.rank), draw, half),
                TensorSpec(f"{half}.right", (self.rank, outer), last, half),
                TensorSpec(f"{half}.bias", (outer,), zeros, half),
            ]
        return tuple(specs)

    def build(self, site: Site) -> LowRank:
        """The computation at a site."""
        return LowRank(self.activation)

    @classmethod
    def example(cls) -> LowRankConfig:
        """A small configuration."""
        return cls(bottleneck_size=4)


class LowRank(Unit):
    """The computation.

    Args:
        activation: Name of the activation.
    """

    def __init__(self, activation: str) -> None:
        self.activation = activation

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `output`; shape `(rows, ..., width)`."""
        from weft.kernels import BottleneckWeights, adapter_bottleneck

        tensors = BottleneckWeights(
            down=weights["down.left"] @ weights["down.right"],
            up=weights["up.left"] @ weights["up.right"],
            down_bias=weights["down.bias"],
            up_bias=weights["up.bias"],
        )
        return adapter_bottleneck(
            output, tensors, weights.routed, residual=output, activation=self.activation
        )
