"""A low-rank branch beside the keys and values of cross-attention, one for all layers.

Source: the public code of UniAdapter (Lu et al., ICLR 2024), where it is on in every configuration, although its
authors call it an ablation to be ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.sharing import Axes
from weft.core.unit.initialisers import constant, fan_in, normal, zeros
from weft.core.unit.layers import affine_tensors, routed_bottleneck
from weft.core.unit.protocol import TensorSpec, Unit, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor

ACROSS_LAYERS: Axes = frozenset({"task", "layer"})


@register_unit
class KeyValueBranchConfig(UnitConfig):
    """`K + s (x A + a) B + b` for the keys of every cross-attention, and a second such branch for the values.

    Args:
        bottleneck_size: Columns of `A`.
        scale: First value of the trained factor `s`.
        init: `identity` starts as the backbone (`B` zero); `repo` draws both matrices from N(0, 0.02), as the code
            does, so that keys and values start perturbed.

    Parts: `down`, `up`, `scale`. Each is one for all layers, and one for each stack.
    """

    parts = ("down", "up", "scale")
    home = ("text",)
    acts_at = ("cross_attention",)
    roles = ("key", "value")
    start_fields = ("init",)

    method: Literal["key_value_branch"] = "key_value_branch"
    bottleneck_size: int = Field(default=64, ge=1)
    scale: float = 1.0
    init: Literal["identity", "repo"] = "identity"

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Two matrices, two biases and a factor."""
        repo = self.init == "repo"
        size = self.bottleneck_size
        down = normal(0.02) if repo else fan_in(site.in_width)
        return (
            *affine_tensors("down", site.in_width, size, down, default=ACROSS_LAYERS),
            *affine_tensors("up", size, site.width, normal(0.02) if repo else zeros, default=ACROSS_LAYERS),
            TensorSpec("scale", (), constant(self.scale), "scale", ACROSS_LAYERS),
        )

    def build(self, site: Site) -> KeyValueBranch:
        """The computation at a site."""
        return KeyValueBranch()


class KeyValueBranch(Unit):
    """The branch beside one linear map."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the branch of `inputs`, shapes `(rows, tokens, out_width)` and `(rows, tokens, in_width)`."""
        return routed_bottleneck(inputs, weights, output, scale="scale", activation="identity")
