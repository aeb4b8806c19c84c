"""AdaptFormer: a bottleneck in parallel to the feed-forward block, which reads the stream before that block's norm.

Source: AdaptFormer (Chen et al., NeurIPS 2022), and its public code for images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.layer_sites import on_stream
from weft.core.backbone.sites import Site, SiteMap
from weft.core.unit.initialisers import fan_in, zeros
from weft.core.unit.layers import affine_tensors, norm_tensors, routed_bottleneck
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class AdaptFormerConfig(UnitConfig):
    """`out = a + FFN(norm a) + scale * (dropout(relu(a D + b)) U + c)`, with `a` the stream before the block.

    Args:
        bottleneck_size: Columns of `D`.
        scale: Factor of the branch.
        dropout: Probability of dropping a hidden value in training.
        norm: LayerNorm on what is read, an option of the code that is off there for images.
        towers: By default the vision tower.

    Parts: `down`, `up`, `norm`, which follows `down`.
    """

    parts = ("down", "up", "norm")
    home = ("vision",)
    acts_at = ("ffn",)
    requires = ("stream",)

    method: Literal["adaptformer"] = "adaptformer"
    bottleneck_size: int = Field(default=64, ge=1)
    scale: float = 0.1
    dropout: float = Field(default=0.1, ge=0, lt=1)
    norm: bool = False

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The feed-forward block of every layer, read and written on the residual stream."""
        return tuple(on_stream(site, sites) for site in super().select(sites))

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Two matrices and two biases, and the norm's two vectors."""
        width, size = site.width, self.bottleneck_size
        norm = norm_tensors("norm", width, "norm", follows="down") if self.norm else ()
        return (
            *affine_tensors("down", width, size, fan_in(width)),
            *affine_tensors("up", size, width, zeros),
            *norm,
        )

    def build(self, site: Site) -> AdaptFormer:
        """The computation at a site."""
        return AdaptFormer(self, site)


class AdaptFormer(ConfiguredUnit[AdaptFormerConfig]):
    """The branch of one layer."""

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` plus the branch of `source`, both of shape `(rows, ..., width)`."""
        return routed_bottleneck(
            source.to(output.dtype),
            weights,
            output,
            norm="norm" if self.config.norm else None,
            scale=self.config.scale,
            activation="relu",
            hidden_dropout=self.config.dropout if weights.training else 0.0,
        )
