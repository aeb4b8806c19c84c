"""Visual prompt tuning: trained tokens after the class token, for the whole tower or new ones for every layer.

Source: VPT (Jia et al., ECCV 2022). The paper classifies by the class token; here the prompts are taken away after
the last layer, so that whatever reads a tower finds as many tokens as before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from weft.core.backbone.layer_sites import around_layer, in_turn, stream_name
from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import ConfigError
from weft.core.unit.initialisers import uniform
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, UnitConfig, Weights, WeightsOf, register_unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@register_unit
class VPTConfig(UnitConfig):
    """`[class, P, patches]` is what layers read, with trained `P`.

    With `depth: shallow` the prompts enter before the first layer and go through all of them; between layers the
    tower's hidden states hold them. With `deep` every layer has prompts of its own in place of what the layer before
    made of its own.

    It cannot start as the backbone: attention gives every added token a share, whatever it is.

    Rows of task -1 see no prompt: where a batch may hold some, every layer is called a second time without prompts.

    Args:
        length: Prompts of a layer.
        depth: Whether every layer has its own.
        dropout: Probability of dropping a value of a prompt, in training.
        patch_size: Side of a patch in pixels; prompts start uniform within `sqrt(6 / (3 patch_size² + width))`.
        towers: By default the vision tower.

    Parts: `prompt`.
    """

    parts = ("prompt",)
    home = ("vision",)
    acts_at = ("attention",)
    requires = ("rows",)
    start_fields = None

    method: Literal["vpt"] = "vpt"
    length: int = Field(default=10, ge=1)
    depth: Literal["shallow", "deep"] = "deep"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    patch_size: int = Field(default=16, ge=1)

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """Every layer as a whole.

        Raises:
            ConfigError: If shallow prompts would skip a layer.
        """
        chosen = super().select(sites)
        if self.depth == "shallow":
            return in_turn(chosen, sites)
        # One layer at a time hands nothing to the next, so any may be left out.
        return tuple(around_layer(site, sites) for site in chosen)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The prompts, shape `(length, width)`, where they enter."""
        if not self.enters(site):
            return ()
        bound = math.sqrt(6 / (3 * self.patch_size**2 + site.width))
        return (TensorSpec("prompt", (self.length, site.width), uniform(bound), "prompt"),)

    def build(self, site: Site) -> VPT:
        """The computation at a layer."""
        return VPT(self, site)

    def enters(self, site: Site) -> bool:
        """Whether prompts are put in before a layer."""
        return self.depth == "deep" or site.is_first


class VPT(ConfiguredUnit[VPTConfig]):
    """The computation around one layer."""

    wraps = ("path",)

    def call(
        self, name: str, forward: Callable[..., Any], arguments: dict[str, Any], weights: WeightsOf
    ) -> Any:
        """Call the layer with the prompts.

        Raises:
            ConfigError: If the layer is called with a mask, which knows no prompts.
        """
        masked = [key for key, value in arguments.items() if key.endswith("mask") and value is not None]
        if masked:
            raise ConfigError(
                f"`towers` must show all tokens to each other, but {self.site.address} is called with `{masked[0]}`. "
                "Choose a vision tower, or method 'prompt' in front of a text."
            )
        stream = stream_name(arguments)
        own = weights(arguments[stream])
        read = arguments[stream]
        if self.config.enters(self.site):
            read = self._entered(read, own)
        result = forward(**{**arguments, stream: read})
        states = result[0] if isinstance(result, tuple) else result
        if own.has_identity:
            plain = forward(**{**arguments, stream: self._without(read)})
            plain = plain[0] if isinstance(plain, tuple) else plain
            states = own.keep_identity(states, self._between(plain, states[:, 1 : 1 + self.config.length]))
        if self.config.depth == "deep" or self.site.is_last:
            states = self._without(states)
        return (states, *result[1:]) if isinstance(result, tuple) else states

    def _entered(self, tokens: Tensor, weights: Weights) -> Tensor:
        from torch.nn import functional

        prompt = weights.rows("prompt").to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return self._between(
            tokens, functional.dropout(prompt, self.config.dropout, training=weights.training)
        )

    def _between(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        import torch

        return torch.cat([tokens[:, :1], prompt, tokens[:, 1:]], dim=1)

    def _without(self, tokens: Tensor) -> Tensor:
        import torch

        return torch.cat([tokens[:, :1], tokens[:, 1 + self.config.length :]], dim=1)
