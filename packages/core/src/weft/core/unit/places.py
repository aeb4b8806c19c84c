"""What configurations have in common by where their units act: after sub-layers, or at linear maps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from weft.core.backbone.sites import Block
from weft.core.errors import ConfigError
from weft.core.unit.protocol import UnitConfig

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "identity"]
Role = Literal["query", "key", "value", "output", "up", "down", "gate"]


class SubLayerConfig(UnitConfig):
    """What every bottleneck after sub-layers has.

    Args:
        bottleneck_size: Width of the bottleneck. Give this or `reduction_factor`.
        reduction_factor: The site's width divided by that of the bottleneck.
        activation: `g`.
        blocks: Sub-layers adapted; by default all there are.
    """

    bottleneck_size: int | None = Field(default=None, ge=1)
    reduction_factor: int | None = Field(default=None, ge=1)
    activation: Activation = "gelu_tanh"
    blocks: tuple[Block, ...] | None = None

    def size(self, width: int) -> int:
        """Width of the bottleneck at a site of some width.

        Raises:
            ConfigError: If both or neither of the two ways to say it are used, or the factor does not divide the width.
        """
        if (self.bottleneck_size is None) == (self.reduction_factor is None):
            what = "neither is" if self.bottleneck_size is None else "both are"
            raise ConfigError(
                f"exactly one of `bottleneck_size` and `reduction_factor` must be given, but {what}. Write for "
                "instance `reduction_factor: 8`."
            )
        if self.bottleneck_size is not None:
            return self.bottleneck_size
        factor = self.reduction_factor or 1
        if width % factor:
            divisors = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
            raise ConfigError(
                f"`reduction_factor` must divide `hidden_size` ({width}), but is {factor}. Choose one of {divisors}."
            )
        return width // factor


class LinearMapConfig(UnitConfig):
    """What every unit at linear maps has.

    Args:
        linears: Linear maps adapted, by role; a map that is fused with others is adapted in its rows alone.
        blocks: Sub-layers whose linear maps are meant; by default all that have them.
    """

    linears: tuple[Role, ...] = Field(default=("query", "value"), min_length=1)
    blocks: tuple[Block, ...] | None = None
