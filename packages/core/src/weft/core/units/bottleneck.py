"""The bottleneck adapter, serial or in parallel, with any sharing of its two halves.

Source: Houlsby et al. 2019, section 2.1; VL-Adapter (Sung et al. 2022), section 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from weft.core.backbone.sites import Site, SiteMap
from weft.core.backbone.wiring import Need
from weft.core.unit.initialisers import constant, fan_in, normal, zeros
from weft.core.unit.layers import affine_tensors, norm_tensors, routed_bottleneck
from weft.core.unit.places import SubLayerConfig
from weft.core.unit.protocol import ConfiguredUnit, Init, TensorSpec, Unit, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class BottleneckConfig(SubLayerConfig):
    """Down-projection, activation, up-projection, added to the sub-layer's output.

    `y = h + scale · (g(h W_down + b_down) W_up + b_up)`; in parallel, `g` reads the sub-layer's input
    instead.

    Args:
        placement: `serial` reads the sub-layer's output, `parallel` its input, and `stream` the residual stream
            with that output in it, after its norm where one follows the sum, as Pfeiffer et al. 2021 do.
        norm: LayerNorm on what the adapter reads; shared across tasks unless `sharing.norm` says otherwise.
        scale: Factor of the adapter's output.
        learned_scale: Whether the factor is trained, from `scale` on, one number per slot.
        init: `zero` draws the down-projection from N(0, 0.02) and leaves all else zero, so that the model starts as the
            backbone. `bert` draws both weights so, as VL-BART does, `torch` draws all as `nn.Linear` does, as VL-T5
            does: models that were pretrained without adapters are thrown far off by either.

    Parts: `down`, `up`, `norm`, `scale`.
    """

    parts = ("down", "up", "norm", "scale")
    start_fields = ("init",)

    method: Literal["bottleneck"] = "bottleneck"
    placement: Literal["serial", "parallel", "stream"] = "serial"
    norm: bool = False
    scale: float = 1.0
    learned_scale: bool = False
    init: Literal["bert", "torch", "zero"] = "zero"

    @property
    def needs(self) -> tuple[Need, ...]:
        """In the stream, a module that holds it."""
        return ("sum",) if self.placement == "stream" else ()

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The outputs of the chosen sub-layers, or where the stream holds them."""
        chosen = super().select(sites)
        if self.placement != "stream":
            return chosen
        return tuple(site.rewired(path=site.wiring.residual.holds or site.path) for site in chosen)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Two matrices and two biases, and what the options add."""
        width = site.width
        size = self.size(width)
        draws = _draws(self.init, width, size)
        specs = [
            *affine_tensors("down", width, size, draws[0], bias=draws[1]),
            *affine_tensors("up", size, width, draws[2], bias=draws[3]),
        ]
        if self.norm:
            specs += norm_tensors("norm", width, "norm")
        if self.learned_scale:
            specs.append(TensorSpec("scale", (), constant(self.scale), "scale", follows="up"))
        return tuple(specs)

    def build(self, site: Site) -> Bottleneck:
        """The computation at a site."""
        if self.placement == "parallel":
            return ParallelBottleneck(self, site)
        normed = self.placement == "stream" and site.wiring.residual.norm
        return NormedBottleneck(self, site) if normed else Bottleneck(self, site)


def _draws(init: str, width: int, size: int) -> tuple[Init, Init, Init, Init]:
    if init == "torch":
        return fan_in(width), fan_in(width), fan_in(size), fan_in(size)
    return normal(0.02), zeros, zeros if init == "zero" else normal(0.02), zeros


class Bottleneck(ConfiguredUnit[BottleneckConfig]):
    """The computation in series."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `output`; shape `(rows, ..., width)`."""
        return self.add(output, output, weights)

    def add(self, output: Tensor, read: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `read`, both of shape `(rows, ..., width)`."""
        return routed_bottleneck(
            read,
            weights,
            output,
            scale="scale" if self.config.learned_scale else self.config.scale,
            activation=self.config.activation,
            norm="norm" if self.config.norm else None,
        )


class NormedBottleneck(Bottleneck):
    """The computation before a norm: it reads what the norm returns and is added to what the norm reads."""

    def before(self, inputs: Tensor, weights: Weights) -> Tensor:
        """`inputs` plus the adapter of their norm; shape `(rows, ..., width)`."""
        return self.add(inputs, weights.plain_forward(inputs), weights)

    after = Unit.after


class ParallelBottleneck(Bottleneck):
    """The computation in parallel: it reads the sub-layer's input."""

    after = Unit.after

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `source`; both of shape `(rows, ..., width)`."""
        return self.add(output, source, weights)
