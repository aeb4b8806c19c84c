"""(IA)³: keys, values and the inner activations of the feed-forward block are scaled, feature by feature.

Source: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.unit.initialisers import ones
from weft.core.unit.layers import across, own_weight
from weft.core.unit.places import LinearMapConfig, Role
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Weights, register_unit, weighted_sum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


@register_unit
class IA3Config(LinearMapConfig):
    """`y = l ⊙ (x W + b)` for keys and values, `y = (l ⊙ x) W + b` for the map out of the feed-forward block.

    Args:
        linears: Maps whose output is scaled, and of `down` the input.

    Parts: `scale`.
    """

    parts = ("scale",)

    method: Literal["ia3"] = "ia3"
    linears: tuple[Role, ...] = Field(default=("key", "value", "down"), min_length=1)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """One factor per feature."""
        width = site.in_width if site.role == "down" else site.width
        return (TensorSpec("scale", (width,), ones, "scale"),)

    def build(self, site: Site) -> Scaled:
        """The computation at a linear map."""
        return ScaledInput(self, site) if site.role == "down" else ScaledOutput(self, site)


class Scaled(ConfiguredUnit[IA3Config]):
    """Factors, of which the difference from one is what a task adds."""

    def combine(
        self, slots: Mapping[str, Tensor], factors: Tensor, own: frozenset[str]
    ) -> tuple[dict[str, Tensor], float]:
        """One plus the sum of what each task adds to one."""
        return {"scale": 1 + weighted_sum(slots["scale"] - 1, factors)}, 0.0


class ScaledInput(Scaled):
    """Scales what a linear map reads."""

    def before(self, inputs: Tensor, weights: Weights) -> Tensor:
        """The scaled input, shape `(rows, ..., in_width)`."""
        return weights.keep_identity(inputs * across(weights.rows("scale"), inputs).to(inputs.dtype), inputs)

    def merge(self, module: nn.Module, weights: Weights) -> None:
        """The columns of the weight, scaled in float32."""
        weight: Tensor = module.weight.flatten(1)  # type: ignore[operator]  # a 1×1 convolution's has 4 axes
        weight.copy_(weight.float() * weights.rows("scale")[0].float())


class ScaledOutput(Scaled):
    """Scales what a linear map returns."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """The scaled output, shape `(rows, ..., out_width)`."""
        first, last = self.site.rows or (0, output.shape[-1])
        part = output[..., first:last]
        scaled = weights.keep_identity(part * across(weights.rows("scale"), part).to(part.dtype), part)
        return scaled if self.site.rows is None else output.slice_scatter(scaled, -1, first, last)

    def merge(self, module: nn.Module, weights: Weights) -> None:
        """The rows of the weight and the bias, scaled in float32."""
        scale = weights.rows("scale")[0].float()
        weight = own_weight(module, self.site)
        weight.copy_(weight.float() * scale[:, None])
        if module.bias is not None:
            bias: Tensor = module.bias  # type: ignore[assignment]
            first, last = self.site.rows or (0, self.site.out_width)
            bias[first:last] = (bias[first:last].float() * scale).to(bias.dtype)
