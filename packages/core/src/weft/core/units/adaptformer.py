"""AdaptFormer: a bottleneck in parallel to the feed-forward block, which reads the stream before that block's norm.

Source: AdaptFormer (Chen et al., NeurIPS 2022), and its public code for images.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.layer_sites import on_stream
from weft.core.backbone.sites import Site, SiteMap
from weft.core.backbone.wiring import Need
from weft.core.unit.initialisers import fan_in, zeros
from weft.core.unit.layers import affine_tensors, norm_tensors, routed_bottleneck
from weft.core.unit.protocol import TensorSpec, Unit, UnitConfig, Weights, register_unit

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

    method: Literal["adaptformer"] = "adaptformer"
    bottleneck_size: int = Field(default=64, ge=1)
    scale: float = 0.1
    dropout: float = Field(default=0.1, ge=0, lt=1)
    norm: bool = False

    @property
    def needs(self) -> tuple[Need, ...]:
        """The stream that enters the block."""
        return ("stream",)

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The feed-forward block of every layer, read and written on the residual stream."""
        return tuple(on_stream(site, sites) for site in super().select(sites))

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Two matrices and two biases, and the norm's two vectors."""
        width, size = site.width, self.bottleneck_size
        specs = [
            *affine_tensors("down", width, size, fan_in(width)),
            *affine_tensors("up", size, width, zeros),
        ]
        if self.norm:
            specs += norm_tensors("norm", width, "norm", follows="down")
        return tuple(specs)

    def build(self, site: Site) -> AdaptFormer:
        """The computation at a site."""
        return AdaptFormer(self.scale, self.dropout, norm=self.norm)


@dataclass(eq=False)
class AdaptFormer(Unit):
    """The branch of one layer.

    Args:
        scale: Factor of the branch.
        dropout: Probability of dropping a hidden value.
        norm: Whether a LayerNorm comes first.
    """

    scale: float
    dropout: float
    _: KW_ONLY
    norm: bool

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` plus the branch of `source`, both of shape `(rows, ..., width)`."""
        return routed_bottleneck(
            source.to(output.dtype),
            weights,
            output,
            norm="norm" if self.norm else None,
            scale=self.scale,
            activation="relu",
            hidden_dropout=self.dropout if weights.training else 0.0,
        )
