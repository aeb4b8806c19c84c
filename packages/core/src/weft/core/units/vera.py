"""VeRA: low-rank updates whose matrices are random, frozen and the same everywhere; only two vectors are trained.

Source: Kopiczko et al. 2024, "VeRA: Vector-based Random Matrix Adaptation". Where maps differ in size, each uses the
first rows and columns of the matrices, as PEFT does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.sharing import AXES
from weft.core.unit.initialisers import constant, uniform, zeros
from weft.core.unit.layers import across, added_to_part, affine, own_weight
from weft.core.unit.places import LinearMapConfig
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor, nn


@register_unit
class VeRAConfig(LinearMapConfig):
    """`y = x W + b + ((dropout(x) A) ⊙ d) B ⊙ e`, with `A` and `B` random and frozen, `e` zero at the start.

    Each map trains `rank` numbers `d` and as many numbers `e` as it has outputs.

    Args:
        rank: Columns of `A`, rows of `B`.
        dropout: Probability of dropping an input of the update.
        start: First value of `d`.

    Parts: `down` (`d`), `up` (`e`), and `projection` (`A` and `B`), which is one for all unless it is named.
    """

    parts = ("down", "up", "projection")

    method: Literal["vera"] = "vera"
    rank: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    start: float = 0.1

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The two matrices, as large as the largest map needs, and the site's two vectors."""
        chosen = self.select(sites)
        inner, outer = max(one.in_width for one in chosen), max(one.width for one in chosen)
        return (
            _matrix("down.weight", inner, self.rank),
            _matrix("up.weight", self.rank, outer),
            TensorSpec("down.scale", (self.rank,), constant(self.start), "down"),
            TensorSpec("up.scale", (site.width,), zeros, "up"),
        )

    def build(self, site: Site) -> VeRA:
        """The computation at a linear map."""
        return VeRA(self, site)


def _matrix(name: str, rows: int, columns: int) -> TensorSpec:
    draw = uniform(math.sqrt(6 / rows))  # He et al. 2015
    everywhere = frozenset(AXES)
    return TensorSpec(name, (rows, columns), draw, "projection", everywhere, trainable=False, common=True)


class VeRA(ConfiguredUnit[VeRAConfig]):
    """The computation."""

    linear_in = frozenset(("down.weight", "down.scale", "up.weight", "up.scale"))

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the update of `inputs`, shapes `(rows, ..., out)` and `(rows, ..., in)`."""
        from torch.nn import functional

        read = functional.dropout(inputs.to(output.dtype), self.config.dropout, weights.training)
        down, scale, up, factor = (value.to(output.dtype) for value in self._tensors(weights))
        update = affine(affine(read, down) * across(scale, read), up) * across(factor, read)
        return weights.keep_identity(added_to_part(output, update, self.site.rows), output)

    def merge(self, module: nn.Module, weights: Weights) -> None:
        """`W + (A ⊙ d) (B ⊙ e)`, added in float32."""
        down, scale, up, factor = (value[0].float() for value in self._tensors(weights))
        weight = own_weight(module, self.site)
        weight.copy_(weight.float() + ((down * scale) @ (up * factor)).mT)

    def _tensors(self, weights: Weights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Matrices of the size of this map, each with its vector, of every row."""
        down, up = weights.rows("down.weight"), weights.rows("up.weight")
        return (
            down[:, : self.site.in_width],
            weights.rows("down.scale"),
            up[..., : self.site.width],
            weights.rows("up.scale"),
        )
