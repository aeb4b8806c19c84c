"""The bottleneck adapter, serial or in parallel, with any sharing of its two halves.

Source: Houlsby et al. 2019, section 2.1; VL-Adapter (Sung et al. 2022), section 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Block, Site, SiteMap
from weft.core.backbone.wiring import Need
from weft.core.errors import ConfigError
from weft.core.unit.initialisers import constant, fan_in, normal, zeros
from weft.core.unit.layers import affine_tensors, norm_tensors, routed_bottleneck
from weft.core.unit.protocol import Init, TensorSpec, Unit, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "identity"]


def bottleneck_width(width: int, bottleneck_size: int | None, reduction_factor: int | None) -> int:
    """Width of a bottleneck, from exactly one of two ways to say it.

    Args:
        width: Width of the site.
        bottleneck_size: The width itself, or None.
        reduction_factor: `width` divided by it, or None.

    Raises:
        ConfigError: If both or neither are given, or the factor does not divide the width.
    """
    if (bottleneck_size is None) == (reduction_factor is None):
        what = "neither is" if bottleneck_size is None else "both are"
        raise ConfigError(
            f"exactly one of `bottleneck_size` and `reduction_factor` must be given, but {what}. Write for "
            "instance `reduction_factor: 8`."
        )
    if bottleneck_size is not None:
        return bottleneck_size
    factor = reduction_factor or 1
    if width % factor:
        divisors = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
        raise ConfigError(
            f"`reduction_factor` must divide `hidden_size` ({width}), but is {factor}. Choose one of "
            f"{divisors}."
        )
    return width // factor


@register_unit
class BottleneckConfig(UnitConfig):
    """Down-projection, activation, up-projection, added to the sub-layer's output.

    `y = h + scale · (g(h W_down + b_down) W_up + b_up)`; in parallel, `g` reads the sub-layer's input
    instead.

    Args:
        bottleneck_size: Width of the bottleneck. Give this or `reduction_factor`.
        reduction_factor: The site's width divided by that of the bottleneck.
        activation: `g`.
        placement: `serial` reads the sub-layer's output, `parallel` its input, and `stream` the residual stream
            with that output in it, after its norm where one follows the sum, as Pfeiffer et al. 2021 do.
        blocks: Sub-layers adapted; by default all there are.
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
    bottleneck_size: int | None = Field(default=None, ge=1)
    reduction_factor: int | None = Field(default=None, ge=1)
    activation: Activation = "gelu_tanh"
    placement: Literal["serial", "parallel", "stream"] = "serial"
    blocks: tuple[Block, ...] | None = None
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
        size = bottleneck_width(width, self.bottleneck_size, self.reduction_factor)
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
        unit = Bottleneck
        if self.placement == "parallel":
            unit = ParallelBottleneck
        elif self.placement == "stream" and site.wiring.residual.norm:
            unit = NormedBottleneck
        return unit(self.activation, self.scale, norm=self.norm, learned_scale=self.learned_scale)

    @classmethod
    def example(cls) -> BottleneckConfig:
        """A small configuration."""
        return cls(bottleneck_size=4)


def _draws(init: str, width: int, size: int) -> tuple[Init, Init, Init, Init]:
    if init == "torch":
        return fan_in(width), fan_in(width), fan_in(size), fan_in(size)
    return normal(0.02), zeros, zeros if init == "zero" else normal(0.02), zeros


class Bottleneck(Unit):
    """The computation in series.

    Args:
        activation: Name of the activation.
        scale: Factor of the output.
        norm: Whether a LayerNorm comes first.
        learned_scale: Whether the factor is a tensor.
    """

    def __init__(self, activation: str, scale: float, *, norm: bool, learned_scale: bool) -> None:
        self.activation = activation
        self.scale = scale
        self.norm = norm
        self.learned_scale = learned_scale

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `output`; shape `(rows, ..., width)`."""
        return self.add(output, output, weights)

    def add(self, output: Tensor, read: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `read`, both of shape `(rows, ..., width)`."""
        return routed_bottleneck(
            read,
            weights,
            output,
            scale=self._scale(weights),
            activation=self.activation,
            norm="norm" if self.norm else None,
        )

    def _scale(self, weights: Weights) -> float | Tensor:
        if not self.learned_scale:
            return self.scale
        scale = weights["scale"]
        return scale[0] if scale.shape[0] == 1 else scale


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
