"""Prompt tuning: trained vectors in front of a stack's input, with or without a reparametrising network.

Source: Lester et al. 2021; with the network, Li and Liang 2021; as in VL-Adapter (Sung et al. 2022), the
network is kept at inference and one vector per position enters it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.backbone.wiring import Need
from weft.core.errors import AddressError
from weft.core.unit.initialisers import normal
from weft.core.unit.layers import affine_tensors
from weft.core.unit.protocol import TensorSpec, UnitConfig, register_unit
from weft.core.units.stack_prompt import Prompt, StackPrompt


@register_unit
class PromptConfig(UnitConfig):
    """`P = tanh(E W_1 + b_1) W_2 + b_2`, or `P = E` without the network, in front of the text.

    The prompt has no learned positions. A backbone offers a place for it as a site of block `embedding`. In
    front of a decoder it is what the decoder would hold as keys and values after reading it.

    It cannot start as the backbone: attention gives vectors in front of the text a share, whatever they are.

    Args:
        length: Vectors per prompt.
        hidden_size: Width of the network's hidden layer; None leaves the network out.
        stacks: Stacks in front of which a prompt goes; by default the encoder, where there is one.

    Parts: `prompt`, which is the table and its network together.
    """

    parts = ("prompt",)
    start_fields = None

    method: Literal["prompt"] = "prompt"
    length: int = Field(default=40, ge=1)
    hidden_size: int | None = Field(default=None, ge=1)

    @property
    def needs(self) -> tuple[Need, ...]:
        """A place in front of a stack."""
        return ("front",)

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The places for prompts.

        Raises:
            AddressError: If the chosen towers have none.
        """
        chosen = sites.check_towers(self.towers)
        if not any(site.tower in chosen and site.block == "embedding" for site in sites.sites):
            raise AddressError(
                f"`towers` must have a place in front of a stack for method {self.method}, but {', '.join(chosen)} of "
                f"family {sites.family} has none. Choose another tower, or the method `prefix`, which puts keys and "
                "values into attentions."
            )
        places = sites.select(towers=self.towers, blocks=("embedding",), stacks=self.stacks)
        if self.stacks is not None:
            return places
        return tuple(site for site in places if site.stack != "decoder") or places

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The table `(length, width)`, and the network's two layers."""
        draw = normal(0.02)
        table = TensorSpec("table", (self.length, site.width), draw, "prompt")
        if self.hidden_size is None:
            return (table,)
        hidden = self.hidden_size
        return (
            table,
            *affine_tensors("inner", site.width, hidden, draw, part="prompt"),
            *affine_tensors("outer", hidden, site.width, draw, part="prompt"),
        )

    def build(self, site: Site) -> Prompt:
        """The computation at a place for prompts."""
        network = self.hidden_size is not None
        return (
            StackPrompt(site, self.length, network=network) if site.wiring.whole else Prompt(network=network)
        )

    @classmethod
    def example(cls) -> PromptConfig:
        """A short prompt with its network."""
        return cls(length=3, hidden_size=6)
