"""Compacter: a bottleneck whose two matrices are sums of Kronecker products.

Source: Mahabadi et al. 2021; Zhang et al. 2021 for the parametrised hypercomplex multiplication (PHM).
VL-Adapter (Sung et al. 2022) uses two full-rank terms, a rule of each half's own, and activation `gelu_tanh`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import ConfigError
from weft.core.unit.initialisers import constant, normal, xavier, zeros
from weft.core.unit.places import SubLayerConfig
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class CompacterConfig(SubLayerConfig):
    """`y = h + scale · (g(h D + b) U + c)` with `D = Σ A_i ⊗ B_i` and `U` in the same way.

    Args:
        divisions: Number of terms, and size of the square matrices `A_i`; must divide both widths.
        rank: Rank of each `B_i`, kept as a product of two; None stands for full matrices.
        tied_rule: One rule `A` for both halves, instead of one each.
        learned_rule: Whether the rule is trained.
        rule_std: Standard deviation of the rule's initial values.
        scale: Factor of the output.
        init: `zero` draws every `B_i` of the down half by Xavier with gain sqrt(2) and makes the up half zero, so that
            the model starts as the backbone; `xavier` draws both halves, as the papers do.

    Parts: `down`, `up`, and `rule`, which follows the half it belongs to unless `sharing.rule` is given.
    """

    parts = ("down", "up", "rule")
    start_fields = ("init",)

    method: Literal["compacter"] = "compacter"
    divisions: int = Field(default=2, ge=1)
    rank: int | None = Field(default=None, ge=1)
    tied_rule: bool = False
    learned_rule: bool = True
    rule_std: float = Field(default=0.01, gt=0)
    scale: float = 1.0
    init: Literal["xavier", "zero"] = "zero"

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """For each half the rule, the matrices `B` or their factors, and a bias."""
        width = site.width
        size = self.size(width)
        for name, value in (("hidden_size", width), ("bottleneck_size", size)):
            if value % self.divisions:
                shared = math.gcd(width, size)
                divisors = ", ".join(str(n) for n in range(1, shared + 1) if shared % n == 0)
                raise ConfigError(
                    f"`divisions` must divide `{name}` ({value}), but is {self.divisions}. Choose one of "
                    f"{divisors}."
                )
        specs: list[TensorSpec] = []
        draw, shape = normal(self.rule_std), (self.divisions,) * 3
        for half, inner, outer in (("down", width, size), ("up", size, width)):
            if half == "down" or not self.tied_rule:
                rule = self.rule_of(half)
                specs.append(TensorSpec(rule, shape, draw, "rule", follows=half, trainable=self.learned_rule))
            specs += self._half(half, inner, outer)
        return tuple(specs)

    def rule_of(self, half: str) -> str:
        """Name of the rule of a half."""
        return "rule" if self.tied_rule else f"rule.{half}"

    def _half(self, half: str, inner: int, outer: int) -> list[TensorSpec]:
        n = self.divisions
        draw = constant(0.0) if half == "up" and self.init == "zero" else xavier(math.sqrt(2))
        bias = TensorSpec(f"{half}.bias", (outer,), zeros, half)
        if self.rank is None:
            return [TensorSpec(f"{half}.weight", (n, inner // n, outer // n), draw, half), bias]
        left = TensorSpec(f"{half}.left", (n, inner // n, self.rank), draw, half)
        right = TensorSpec(f"{half}.right", (n, self.rank, outer // n), xavier(math.sqrt(2)), half)
        return [left, right, bias]

    def build(self, site: Site) -> Compacter:
        """The computation at a site."""
        return Compacter(self, site)

    @classmethod
    def example(cls) -> CompacterConfig:
        """A small configuration."""
        return cls(bottleneck_size=4)


class Compacter(ConfiguredUnit[CompacterConfig]):
    """The computation."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the adapter of `output`; shape `(rows, ..., width)`."""
        from weft.kernels import BottleneckWeights, adapter_bottleneck

        if self.config.rank is not None and self._alone(weights):
            return self._factors(output, weights)
        down, up = self.matrix("down", weights), self.matrix("up", weights)
        down_bias = weights["down.bias"].expand(down.shape[0], -1)
        up_bias = weights["up.bias"].expand(up.shape[0], -1)
        return adapter_bottleneck(
            output,
            BottleneckWeights(down, up, down_bias, up_bias),
            weights.routed,
            residual=output,
            scale=self.config.scale,
            activation=self.config.activation,
        )

    def _alone(self, weights: Weights) -> bool:
        names = [f"{half}.{kind}" for half in ("down", "up") for kind in ("left", "right", "bias")]
        names += [self.config.rule_of("down"), self.config.rule_of("up")]
        return all(weights[name].shape[0] == 1 for name in names)

    def _factors(self, output: Tensor, weights: Weights) -> Tensor:
        """The adapter of all rows from its factors; neither matrix is formed."""
        from weft.kernels import LowRankKronecker, kronecker_bottleneck

        def half(name: str) -> LowRankKronecker:
            rule = weights[self.config.rule_of(name)]
            return LowRankKronecker(rule[0], weights[f"{name}.left"][0], weights[f"{name}.right"][0])

        adapted = kronecker_bottleneck(
            output,
            half("down"),
            half("up"),
            down_bias=weights["down.bias"][0],
            up_bias=weights["up.bias"][0],
            residual=output,
            scale=self.config.scale,
            activation=self.config.activation,
        )
        return weights.keep_identity(adapted, output)

    def matrix(self, half: str, weights: Weights) -> Tensor:
        """The matrix of a half, shape `(slots, in, out)`.

        There are as many slots as the part with the most has: a rule shared across tasks serves all of them.
        """
        from weft.kernels import phm_weight

        rule = weights[self.config.rule_of(half)]
        if self.config.rank is None:
            matrix = phm_weight(rule, weights[f"{half}.weight"])
        else:
            matrix = phm_weight(rule, left=weights[f"{half}.left"], right=weights[f"{half}.right"])
        slots = weights[f"{half}.bias"].shape[0]
        return matrix if matrix.shape[0] >= slots else matrix.expand(slots, -1, -1)
