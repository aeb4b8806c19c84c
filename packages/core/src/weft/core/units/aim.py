"""AIM: an image tower that learns video, its frozen attention used a second time over the frames.

Source: AIM (Yang et al., ICLR 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.layer_sites import around_layer, by_video, relative
from weft.core.backbone.sites import Site, SiteMap
from weft.core.unit.initialisers import fan_in, zeros
from weft.core.unit.layers import affine_tensors, routed_bottleneck
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Unit, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor

TEMPORAL = "temporal"


@register_unit
class AIMConfig(UnitConfig):
    """Three bottlenecks in every layer, each `A(x) = gelu(x D + b) U + c` with `U` zero at the start.

    `x <- x + A_t(MSA(norm x) over time)`, `x <- x + y + A_s(y)` with `y = MSA(norm x)`, and
    `x <- x + FFN(n) + scale * A_j(n)` with `n` the normed input of the feed-forward block. The attention over time is
    the layer's own, frozen, with the frames of one place in the role of tokens. A trained embedding of the frame's
    number, zero at the start, is added before the first layer.

    Rows of the tower are the frames of one video in order.

    Args:
        frames: Frames of every video.
        bottleneck_size: Columns of every `D`; by default a quarter of the width.
        scale: Factor of `A_j`: 0.5 for Kinetics.
        temporal_embedding: Whether there is an embedding of the frame's number; without it, the order of frames
            cannot be seen.
        towers: By default the vision tower.

    Parts: `down`, `up`, `embedding`.
    """

    parts = ("down", "up", "embedding")
    home = ("vision",)
    acts_at = ("attention", "ffn")
    requires = ("stream",)

    method: Literal["aim"] = "aim"
    frames: int = Field(default=8, ge=1)
    bottleneck_size: int | None = Field(default=None, ge=1)
    scale: float = 0.5
    temporal_embedding: bool = True

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """Every layer as a whole, its attention and its feed-forward block."""
        found = []
        for site in super().select(sites):
            if site.block == "attention":
                found.append(around_layer(site, sites, TEMPORAL))
                # The whole attention, not its last map, so that the pass over time can go without the unit.
                site = site.rewired(path=site.wiring.source)
            found.append(site)
        return tuple(found)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """Two matrices and two biases, and in the first layer the embedding of frames."""
        width = site.width
        size = self.bottleneck_size or max(1, width // 4)
        specs = [
            *affine_tensors("down", width, size, fan_in(width)),
            *affine_tensors("up", size, width, zeros),
        ]
        if self.has_embedding(site):
            specs.append(TensorSpec("embedding", (self.frames, width), zeros, "embedding"))
        return tuple(specs)

    def build(self, site: Site) -> Unit:
        """The computation at a site."""
        if site.role == TEMPORAL:
            return AIMTemporal(self, site)
        return AIMBeside(self, site) if site.block == "ffn" else AIMBottleneck()

    def has_embedding(self, site: Site) -> bool:
        """Whether the embedding of frames is added before a layer."""
        first = min(self.layers) if self.layers is not None else 0
        return self.temporal_embedding and site.role == TEMPORAL and site.layer == first


class AIMBottleneck(Unit):
    """The bottleneck after the attention over space."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the branch that reads it, shape `(rows, tokens, width)`."""
        return routed_bottleneck(output, weights, output, activation="gelu")


class AIMBeside(ConfiguredUnit[AIMConfig]):
    """The bottleneck beside the feed-forward block."""

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` plus the branch that reads the block's input; both of shape `(rows, tokens, width)`."""
        return routed_bottleneck(
            source.to(output.dtype), weights, output, scale=self.config.scale, activation="gelu"
        )


class AIMTemporal(ConfiguredUnit[AIMConfig]):
    """The attention over time, before a layer."""

    def before(self, inputs: Tensor, weights: Weights) -> Tensor:
        """`inputs` after attention over time; shape `(videos * frames, tokens, width)`.

        Raises:
            ConfigError: If the rows are no whole number of videos.
        """
        frames, tokens = self.config.frames, inputs.shape[1]
        videos = by_video(inputs.shape[0], frames, self.site.address)
        changed = inputs
        if self.config.has_embedding(self.site):
            place = weights.rows("embedding").to(inputs.dtype)
            place = place.expand(videos, -1, -1) if place.shape[0] == 1 else place[::frames]
            changed = inputs + place.flatten(0, 1)[:, None]
        over_time = changed.unflatten(0, (videos, frames)).transpose(1, 2).flatten(0, 1)
        normed = weights.plain_forward(over_time, relative(self.site.wiring.residual.before, self.site))
        found = weights.plain_forward(normed, relative(self.site.wiring.source, self.site))
        mixed = found[0] if isinstance(found, tuple) else found
        mixed = mixed.unflatten(0, (videos, tokens)).transpose(1, 2).flatten(0, 1)
        mixed = mixed.to(changed.dtype)
        return weights.keep_identity(routed_bottleneck(mixed, weights, changed, activation="gelu"), inputs)
