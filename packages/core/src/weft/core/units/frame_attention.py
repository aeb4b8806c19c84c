"""Frame-aware attention without parameters: frames that look like the text get louder keys in cross-attention.

Source: UniAdapter (Lu et al., ICLR 2024, arXiv 2302.06605), and its public code for what is scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import ConfigError, RoutingError
from weft.core.unit.protocol import Unit, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor


def frame_weights(text: Tensor, frames: Tensor, temperature: float = 4.0) -> Tensor:
    """The weight of every frame of a video for one text: `w = T softmax_t(<u, f_t> / temperature)`.

    Their mean is 1, so frames that are all alike change nothing. No gradient flows through them.

    Args:
        text: Feature of each row's text, of length one, shape `(rows, size)`.
        frames: Feature of each row's frames, of length one, shape `(rows, frames, size)`.
        temperature: Similarities are divided by it.

    Returns:
        Shape `(rows, frames)`.

    Example:
        >>> import torch
        >>> u = torch.tensor([[1.0, 0.0]])
        >>> frame_weights(u, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).round(decimals=3)
        tensor([[1.1240, 0.8760]])
    """
    similarity = (frames * text[:, None]).sum(dim=-1).detach().float()
    return frames.shape[1] * (similarity / temperature).softmax(dim=1)


@register_unit
class FrameAttentionConfig(UnitConfig):
    """Scales the keys of a video's patches by the weights of their frames, in every cross-attention to it.

    The weights come with the batch: `with model.signal(frame_weights=frame_weights(text, frames))`. Without them
    nothing is scaled, which is what the public code does in testing. The key of each frame's class token and all
    values stay as they are. Keys are scaled before they are cached, so generation is right as well.

    Args:
        stacks: By default the encoder where it has cross-attention, for the decoder of question answering attends to
            question states; otherwise the decoder.
    """

    home = ("text",)
    acts_at = ("cross_attention",)
    roles = ("key",)

    method: Literal["frame_attention"] = "frame_attention"

    @property
    def signals(self) -> tuple[str, ...]:
        """The weights of frames, which the caller sets."""
        return ("frame_weights",)

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The key maps of cross-attention.

        Raises:
            AddressError: If the backbone has no cross-attention.
            ConfigError: If `sharing` is given, for there is nothing to share.
        """
        if self.sharing.parts:
            raise ConfigError("`sharing` must be left out of 'frame_attention', because it has no weights.")
        found = super().select(sites)
        encoder = tuple(site for site in found if site.stack == "encoder")
        return encoder if encoder and self.stacks is None else found

    def build(self, site: Site) -> FrameAttention:
        """The computation at a site."""
        return FrameAttention()


class FrameAttention(Unit):
    """Scales the output of one key map, with what other units add to it, as the keys of a frame are scaled there."""

    def finish(self, output: Tensor, weights: Weights) -> Tensor:
        """Keys of every frame's patches times the frame's weight.

        Args:
            output: Keys, shape `(rows, frames * tokens, width)`; the first token of each frame is its class token.
            weights: Its `signal("frame_weights")`, shape `(rows, frames)`; rows that are repeated, such as beams,
                repeat it.

        Raises:
            RoutingError: If rows or tokens are not a multiple of those of the weights.
        """
        factors = weights.signal("frame_weights")
        if factors is None:
            return output
        rows, tokens = output.shape[:2]
        given, frames = factors.shape
        if rows % given or tokens % frames:
            raise RoutingError(
                f"`frame_weights` must divide the keys, of {rows} rows and {tokens} tokens, but has shape "
                f"{tuple(factors.shape)}. Give one weight per frame of each row's video."
            )
        factors = factors.repeat_interleave(rows // given, dim=0).to(output.dtype)
        scaled = factors[:, :, None].expand(-1, -1, tokens // frames).clone()
        scaled[:, :, 0] = 1
        changed = output * scaled.reshape(rows, tokens, 1)
        return weights.keep_identity(changed, output)
