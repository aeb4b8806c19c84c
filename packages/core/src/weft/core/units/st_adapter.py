"""ST-Adapter: depth-wise convolutions over time that let frames of a video see each other.

Source: ST-Adapter (Pan et al., NeurIPS 2022).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.layer_sites import around_layer, by_video, on_stream
from weft.core.backbone.sites import Site, SiteMap
from weft.core.backbone.wiring import Need
from weft.core.errors import ConfigError
from weft.core.unit.initialisers import fan_in, zeros
from weft.core.unit.layers import affine_tensors, routed_linear
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class STAdapterConfig(UnitConfig):
    """`x_patch + conv_t(x_patch D + b) U + c` before the attention of every layer, linear throughout.

    `conv_t` mixes each channel over `kernel_size` neighbouring frames at one place, and starts at zero. The class
    token passes by. Rows of the tower are the frames of one video in order.

    Args:
        frames: Frames of every video.
        bottleneck_size: Columns of `D`.
        kernel_size: Frames mixed; odd.
        blocks: Sub-layers before which there is an adapter: `attention`, `ffn`, or both.
        towers: By default the vision tower.

    Parts: `down`, `conv`, `up`.
    """

    parts = ("down", "conv", "up")
    home = ("vision",)

    method: Literal["st_adapter"] = "st_adapter"
    frames: int = Field(default=8, ge=1)
    bottleneck_size: int = Field(default=384, ge=1)
    kernel_size: int = Field(default=3, ge=1)
    blocks: tuple[Literal["attention", "ffn"], ...] = Field(default=("attention",), min_length=1)

    @property
    def needs(self) -> tuple[Need, ...]:
        """Before a feed-forward block, the stream."""
        return ("stream",) if "ffn" in self.blocks else ()

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """Every layer as a whole; before its feed-forward block, the stream that its attention writes to.

        Raises:
            ConfigError: If `kernel_size` is even.
        """
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"`kernel_size` must be odd, but is {self.kernel_size}. The authors take 3.")
        found = []
        for site in self.among(sites, ["attention"]):
            if "attention" in self.blocks:
                found.append(around_layer(site, sites))
            if "ffn" in self.blocks:
                found.append(replace(on_stream(site, sites), block="ffn"))
        return tuple(found)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Two matrices, a kernel for every channel, and their biases."""
        width, size = site.width, self.bottleneck_size
        return (
            *affine_tensors("down", width, size, fan_in(width)),
            TensorSpec("conv.weight", (self.kernel_size, size), zeros, "conv"),
            TensorSpec("conv.bias", (size,), zeros, "conv"),
            *affine_tensors("up", size, width, fan_in(size)),
        )

    def build(self, site: Site) -> STAdapter:
        """The computation at a layer."""
        return STAdapterBefore(self, site) if site.block == "attention" else STAdapterBetween(self, site)


class STAdapter(ConfiguredUnit[STAdapterConfig]):
    """What both places have in common."""

    def _added(self, output: Tensor, stream: Tensor, weights: Weights) -> Tensor:
        """`output` with the adapter of `stream` added to its patches."""
        import torch
        from torch.nn import functional

        frames = self.config.frames
        by_video(stream.shape[0], frames, self.site.address)
        hidden = routed_linear(stream[:, 1:], weights, "down").unflatten(0, (-1, frames))
        # One kernel for each row's task, of which all frames of a video have the same: `(videos or 1, kernel, size)`.
        kernel = weights.rows("conv.weight").to(hidden.dtype)
        bias = weights.rows("conv.bias").to(hidden.dtype)
        if kernel.shape[0] > 1:
            kernel, bias = kernel[::frames], bias[::frames]
        half = kernel.shape[1] // 2
        padded = functional.pad(hidden, (0, 0, 0, 0, half, half))
        mixed = bias[:, None, None]
        for place in range(kernel.shape[1]):
            mixed = mixed + kernel[:, place, None, None] * padded[:, place : place + frames]
        update = routed_linear(mixed.expand_as(hidden).flatten(0, 1), weights, "up")
        changed = torch.cat([output[:, :1], output[:, 1:] + update], dim=1)
        return weights.keep_identity(changed, output)


class STAdapterBefore(STAdapter):
    """The computation before one layer."""

    def before(self, inputs: Tensor, weights: Weights) -> Tensor:
        """`inputs` with the adapter added to its patches; shape `(videos * frames, 1 + patches, width)`.

        Raises:
            ConfigError: If the rows are no whole number of videos.
        """
        return self._added(inputs, inputs, weights)


class STAdapterBetween(STAdapter):
    """The computation before a feed-forward block: added to what attention adds to the stream."""

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` with the adapter of the stream after attention, which is `source + output`."""
        return self._added(output, source + output, weights)
