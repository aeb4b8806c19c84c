"""Ladder side-tuning: a narrow network beside a frozen tower, which learns without a gradient through the tower.

Source: LST (Sung et al., NeurIPS 2022). Its authors start the side network from a pruned copy of the backbone; ours is
newly drawn. `residual` is our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from weft.core.backbone.layer_sites import in_turn, stream_name
from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import ConfigError
from weft.core.unit.initialisers import fan_in, zeros
from weft.core.unit.layers import affine_tensors, norm_tensors, routed_linear, routed_norm
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, UnitConfig, Weights, WeightsOf, register_unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

GATE_TEMPERATURE = 0.1
WIDENING = 4


@register_unit
class LSTConfig(UnitConfig):
    """`z_i = g_i s_{i-1} + (1 - g_i) (h_i W_i + b_i)` and `s_i = block_i(z_i)`, with `h_i` the output of layer `i`.

    `s_0` is the first layer's input through a down-projection of its own, `g_i = sigmoid(a_i / 0.1)` with `a_i` zero at
    the start, and `block_i` a layer of the same kind as the backbone's but narrow:
    `y = z + attention(norm z)`, `y + gelu(norm y W + b) V + c`. The tower returns `norm(s_L) U + u`.

    The tower itself runs without a graph: nothing that happens within its layers is kept for the backward pass, only
    what each of them returns, which the down-projections read. So no other unit can learn within these layers. Between
    layers the hidden states are `side_size` wider, for the side network's state travels with them.

    Args:
        reduction_factor: The tower's width over that of the side network.
        num_heads: Heads of the side network's attention.
        residual: Whether the tower's own output is added to the side network's; `U` then starts at zero, so that the
            model starts as the backbone. The paper has no such sum.
        side_layers: Layers that have a block beside them; by default all. The others are passed by.
        towers: By default the vision tower.

    Parts: `down`, `gate`, `block`, `up`.
    """

    parts = ("down", "gate", "block", "up")
    home = ("vision",)
    requires = ("rows",)
    start_fields = ("residual",)
    stops_gradients: ClassVar[bool] = True

    method: Literal["lst"] = "lst"
    reduction_factor: int = Field(default=8, ge=1)
    num_heads: int = Field(default=4, ge=1)
    residual: bool = True
    side_layers: tuple[int, ...] | None = None

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """Every layer as a whole.

        Raises:
            ConfigError: If the tower reads another by cross-attention, or layers are chosen.
        """
        if self.layers is not None:
            raise ConfigError(
                "`layers` must be left out of 'lst', because the tower runs without a graph as a whole, but is "
                f"{list(self.layers)}. Name the layers with a side block in `side_layers`."
            )
        chosen = self.among(sites, ["attention"])
        crossing = {(site.tower, site.stack) for site in sites.sites if site.block == "cross_attention"}
        for site in chosen:
            if (site.tower, site.stack) in crossing:
                raise ConfigError(
                    f"`stacks` must read nothing beside their own input, but {site.address} stands in one with "
                    "cross-attention, which the side network lacks. Choose a vision tower, or an encoder without it."
                )
        unknown = sorted(set(self.side_layers or ()) - {site.layer for site in chosen})
        if unknown:
            towers = dict.fromkeys(site.tower for site in chosen)
            raise ConfigError(
                f"`side_layers` must be layers of {', '.join(towers)} (0 to {chosen[-1].layer}), but names {unknown}."
            )
        return in_turn(chosen, sites)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The maps down and up where the ladder begins and ends, and the block of a layer.

        Raises:
            ConfigError: If `reduction_factor` does not divide the width, or `num_heads` that of the side network.
        """
        width = site.width
        size = self.size(site)
        specs: list[TensorSpec] = []
        if site.is_first:
            specs += affine_tensors("enter", width, size, fan_in(width), part="down")
        if self.has_block(site):
            specs += affine_tensors("down", width, size, fan_in(width))
            specs.append(TensorSpec("gate", (), zeros, "gate"))
            specs += norm_tensors("attention_norm", size, "block")
            specs += norm_tensors("ffn_norm", size, "block")
            for name in ("query", "key", "value", "output"):
                specs += affine_tensors(name, size, size, fan_in(size), part="block")
            wide = WIDENING * size
            specs += affine_tensors("widen", size, wide, fan_in(size), part="block")
            specs += affine_tensors("narrow", wide, size, fan_in(wide), part="block")
        if site.is_last:
            specs += norm_tensors("up_norm", size, "up")
            specs += affine_tensors("up", size, width, zeros if self.residual else fan_in(size))
        return tuple(specs)

    def build(self, site: Site) -> LST:
        """The computation at a layer."""
        return LST(self, site)

    def has_block(self, site: Site) -> bool:
        """Whether the side network has a block beside a layer."""
        return self.side_layers is None or site.layer in self.side_layers

    def size(self, site: Site) -> int:
        """Width of the side network."""
        size, rest = divmod(site.width, self.reduction_factor)
        if rest:
            raise ConfigError(
                f"`reduction_factor` must divide the width of {site.address} ({site.width}), but is "
                f"{self.reduction_factor}. The authors take 8."
            )
        if size % self.num_heads:
            raise ConfigError(
                f"`num_heads` must divide the side network's width ({size}), but is {self.num_heads}. Choose another "
                "number, or another `reduction_factor`."
            )
        return size

    @classmethod
    def example(cls) -> LSTConfig:
        """A small configuration."""
        return cls(reduction_factor=4, num_heads=2)


class LST(ConfiguredUnit[LSTConfig]):
    """The computation around one layer, whose position says whether the ladder begins or ends there."""

    wraps = ("path",)

    def call(
        self, name: str, forward: Callable[..., Any], arguments: dict[str, Any], weights: WeightsOf
    ) -> Any:
        """Call the layer without a graph, and the side network's block beside it.

        Raises:
            ConfigError: If the layer is called with a cache of keys, which the side network has none of.
        """
        import torch

        if arguments.get("past_key_values") is not None:
            raise ConfigError(
                f"`use_cache` must be false with 'lst', but {self.site.address} is called with a cache, and the side "
                "network keeps none. Call the model with `use_cache=False`."
            )
        stream = stream_name(arguments)
        read = arguments[stream]
        own, width = weights(read), self.site.width
        hidden = read if self.site.is_first else read[..., :width]
        # A copy, or the backward pass would keep the wide tensor that it is a view of.
        side = routed_linear(read, own, "enter") if self.site.is_first else read[..., width:].contiguous()
        with torch.no_grad():
            result = forward(**{**arguments, stream: hidden.detach()})
        states = result[0] if isinstance(result, tuple) else result
        if self.config.has_block(self.site):
            gate = (own.rows("gate") / GATE_TEMPERATURE).sigmoid().view(-1, *[1] * (side.dim() - 1))
            gate = gate.to(side.dtype)
            side = self._block(gate * side + (1 - gate) * routed_linear(states, own, "down"), own, arguments)
        states = self._left(states, side, own) if self.site.is_last else torch.cat([states, side], dim=-1)
        return (states, *result[1:]) if isinstance(result, tuple) else states

    def _left(self, states: Tensor, side: Tensor, weights: Weights) -> Tensor:
        found = routed_linear(routed_norm(side, weights, "up_norm"), weights, "up")
        return weights.keep_identity(states + found if self.config.residual else found, states)

    def _block(self, side: Tensor, weights: Weights, arguments: dict[str, Any]) -> Tensor:
        from torch.nn import functional

        normed = routed_norm(side, weights, "attention_norm")
        query, key, value = (
            routed_linear(normed, weights, name).unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mask = arguments.get("attention_mask")
        if mask is not None and mask.is_floating_point():
            mask = mask.to(query.dtype)
        causal = mask is None and bool(arguments.get("is_causal"))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        side = side + routed_linear(mixed.transpose(1, 2).flatten(2), weights, "output")
        wide = functional.gelu(routed_linear(routed_norm(side, weights, "ffn_norm"), weights, "widen"))
        return side + routed_linear(wide, weights, "narrow")
