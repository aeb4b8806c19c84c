"""MMA: adapters in the upper layers of both towers of CLIP, joined by a small map that the towers share.

Source: MMA, Multi-Modal Adapter (Yang et al., CVPR 2024), and its public code. That code also rescales gradients
around the factor, which is not done here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from weft.core.backbone.layer_sites import around_layer
from weft.core.backbone.sites import Site, SiteMap
from weft.core.sharing import Axes
from weft.core.unit.initialisers import normal, zeros
from weft.core.unit.layers import affine_tensors, routed_linear
from weft.core.unit.protocol import ConfiguredUnit, Init, TensorSpec, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

ACROSS_MODALITIES: Axes = frozenset({"task", "modality"})


@register_unit
class MMAConfig(UnitConfig):
    """`out + scale * (relu(relu(n D + b) S + s) U + u)`, with `n` the normed input of the layer's attention.

    `S` is one for both towers; `D` and `U` belong to a tower.

    Args:
        bottleneck_size: Width of `S`.
        scale: Factor of the adapter: 0.001 in the released configuration.
        upper: How many of the last layers are adapted, where `layers` does not say which.
        init: `identity` makes `U` zero, so that the model starts as the backbone; `repo` draws it like the other
            matrices, as the code does.

    Parts: `down`, `core`, `up`.
    """

    parts = ("down", "core", "up")
    acts_at = ("attention",)
    start_fields = ("init",)
    earlier: ClassVar[Mapping[str, Any]] = {"init": "repo"}

    method: Literal["mma"] = "mma"
    bottleneck_size: int = Field(default=32, ge=1)
    scale: float = 0.001
    upper: int = Field(default=8, ge=1)
    init: Literal["identity", "repo"] = "identity"

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The upper layers of every tower, each as a whole, which also know the input of their attention."""
        chosen = super().select(sites)
        # Layers come in their order, so that the last one counts.
        depth = {(site.tower, site.stack): (site.layer or 0) + 1 for site in chosen}
        return tuple(
            around_layer(site, sites)
            for site in chosen
            if self.layers is not None or (site.layer or 0) >= depth[site.tower, site.stack] - self.upper
        )

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Three matrices and their biases."""
        width, size = site.width, self.bottleneck_size
        last = zeros if self.init == "identity" else _fan_out(width)
        return (
            *affine_tensors("down", width, size, _fan_out(size)),
            *affine_tensors("core", size, size, _fan_out(size), default=ACROSS_MODALITIES),
            *affine_tensors("up", size, width, last),
        )

    def build(self, site: Site) -> MMA:
        """The computation at a layer."""
        return MMA(self, site)


def _fan_out(features: int) -> Init:
    """Normal, with the variance that keeps gradients after a ReLU (`kaiming_normal_` of mode `fan_out`)."""
    return normal((2 / features) ** 0.5)


class MMA(ConfiguredUnit[MMAConfig]):
    """The adapter of one layer."""

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `source`, both of shape `(rows, tokens, width)`."""
        hidden = source.to(output.dtype)
        for name in ("down", "core"):
            hidden = routed_linear(hidden, weights, name).relu()
        update = self.config.scale * routed_linear(hidden, weights, "up")
        return weights.keep_identity(output + update, output)
