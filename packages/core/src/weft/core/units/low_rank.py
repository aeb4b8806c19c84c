"""The low-rank adapter: a bottleneck whose two matrices are products of two thin ones.

Source: the low-rank baseline of Compacter (Mahabadi et al. 2021), as the VL-Adapter code has it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.unit.initialisers import xavier, zeros
from weft.core.unit.places import SubLayerConfig
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class LowRankConfig(SubLayerConfig):
    """`y = h + g(h L_down R_down + b) L_up R_up + c`.

    Args:
        rank: Rank of both matrices.
        init: `zero` draws factors by Xavier with gain sqrt(2) and makes the last of the four zero, so that the model
            starts as the backbone; `xavier` draws all four, as the papers do.

    Parts: `down`, `up`.
    """

    parts = ("down", "up")
    start_fields = ("init",)

    method: Literal["low_rank"] = "low_rank"
    rank: int = Field(default=1, ge=1)
    init: Literal["xavier", "zero"] = "zero"

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """For each half a left factor `(in, rank)`, a right factor `(rank, out)` and a bias."""
        size = self.size(site.width)
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
        return LowRank(self, site)


class LowRank(ConfiguredUnit[LowRankConfig]):
    """The computation."""

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
            output, tensors, weights.routed, residual=output, activation=self.config.activation
        )
