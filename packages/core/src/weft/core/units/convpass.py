"""Convpass: small convolutions beside attention and feed-forward block, which know that tokens are on a grid.

Source: Convpass (Jie and Deng 2022, "Convolutional Bypasses Are Better Vision Transformer Adapters").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Block, Site, SiteMap
from weft.core.errors import ConfigError
from weft.core.unit.initialisers import xavier, zeros
from weft.core.unit.layers import affine_tensors, routed_linear
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class ConvpassConfig(UnitConfig):
    """`out = block(n) + scale * dropout(g(conv(g(n D + b)))) U + c`, with `n` the normed input of the block.

    `conv` is a 3 by 3 convolution over the grid of patches; the class token is convolved alone, as a map of one
    place. `g(x) = x sigmoid(1.702 x)`.

    Args:
        bottleneck_size: Channels of the convolution.
        scale: Factor of the branch; chosen per task by the authors.
        dropout: Probability of dropping a value before `U`, in training.
        blocks: Sub-layers adapted.
        towers: By default the vision tower.

    Parts: `down`, `conv`, `up`.
    """

    parts = ("down", "conv", "up")
    home = ("vision",)

    method: Literal["convpass"] = "convpass"
    bottleneck_size: int = Field(default=8, ge=1)
    scale: float = 1.0
    dropout: float = Field(default=0.1, ge=0, lt=1)
    blocks: tuple[Block, ...] = ("attention", "ffn")

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Two matrices, a convolution and their biases."""
        width, size = site.width, self.bottleneck_size
        return (
            *affine_tensors("down", width, size, xavier()),
            TensorSpec("conv.weight", (size, size, 3, 3), _centre, "conv"),
            TensorSpec("conv.bias", (size,), zeros, "conv"),
            *affine_tensors("up", size, width, zeros),
        )

    def build(self, site: Site) -> Convpass:
        """The computation at a site."""
        return Convpass(self, site)


def _centre(value: Tensor) -> None:
    """Each channel starts as a copy of itself."""
    value.zero_()
    for channel in range(value.shape[0]):
        value[channel, channel, 1, 1] = 1.0


class Convpass(ConfiguredUnit[ConvpassConfig]):
    """The branch beside one sub-layer."""

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` plus the branch of `source`, both of shape `(rows, 1 + patches, width)`.

        Raises:
            ConfigError: If the patches are no square.
        """
        import torch
        from torch.nn import functional

        side = round((source.shape[1] - 1) ** 0.5)
        if side * side != source.shape[1] - 1:
            raise ConfigError(
                f"`towers` must show a class token and a square of patches to convolve, but {self.site.address} has "
                f"{source.shape[1]} tokens. Choose a vision tower with a class token, and square images."
            )
        hidden = _quick_gelu(routed_linear(source.to(output.dtype), weights, "down"))
        alone, patches = hidden[:, :1].mT[..., None], hidden[:, 1:].mT.unflatten(2, (side, side))
        alone, patches = (self._convolved(image, weights).flatten(2).mT for image in (alone, patches))
        hidden = _quick_gelu(torch.cat([alone, patches], dim=1))
        hidden = functional.dropout(hidden, self.config.dropout, training=weights.training)
        update = self.config.scale * routed_linear(hidden, weights, "up")
        return weights.keep_identity(output + update, output)

    def _convolved(self, image: Tensor, weights: Weights) -> Tensor:
        from torch.nn import functional

        kernel = weights.rows("conv.weight").to(image.dtype)
        bias = weights.rows("conv.bias").to(image.dtype)
        if kernel.shape[0] == 1:
            return functional.conv2d(image, kernel[0], bias[0], padding=1)
        # Rows with kernels of their own are the groups of one convolution.
        rows = image.shape[0]
        found = functional.conv2d(
            image.flatten(0, 1)[None], kernel.flatten(0, 1), bias.flatten(), padding=1, groups=rows
        )
        return found[0].unflatten(0, (rows, -1))


def _quick_gelu(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()
