"""LoRA: a low-rank update of linear maps, with DoRA's trained magnitude as an option.

Source: Hu et al. 2022; as VL-Adapter (Sung et al. 2022) uses it, on queries and values of every attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import Field, model_validator

from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import AttachError, ConfigError
from weft.core.unit.initialisers import fan_in, ones, zeros
from weft.core.unit.layers import across, added_to_part, is_map, of_rows, own_weight
from weft.core.unit.places import LinearMapConfig, Role
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Weights, register_unit, weighted_sum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class LowRankUpdateConfig(LinearMapConfig):
    """What every low-rank update of linear maps has.

    Args:
        rank: Rank of the update.
        alpha: Numerator of the scale; by default the rank, so that the scale is one.
        rank_stabilised: Scale `alpha / sqrt(rank)` instead of `alpha / rank`.
        dropout: Probability of dropping an input of the update.
        components: Linear maps outside the layers that are updated too, by component (`projector`, `lm_head`, …) or one
            by one (`projector.linear_1`), whatever `towers` and `layers` say. With them, `linears` may be empty.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    rank_stabilised: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    linears: tuple[Role, ...] = ("query", "value")
    components: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_maps(self) -> LowRankUpdateConfig:
        if not self.linears and not self.components:
            raise ValueError(
                "`linears` must name a role where `components` is empty, but is empty. Write for instance "
                "`linears: [query, value]`."
            )
        return self

    @property
    def scale(self) -> float:
        """Factor of the update."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The chosen linear maps, those outside the layers last."""
        inside = super().select(sites) if self.linears else ()
        return (*inside, *sites.outside(self.components))


@register_unit
class LoRAConfig(LowRankUpdateConfig):
    """`y = x W + b + scale · dropout(x) A B`, with `A` called `down` and `B`, which starts at zero, `up`.

    Args:
        magnitude: Train the length of every output's weights apart from their direction, which is DoRA.

    Parts: `down`, `up`, and `magnitude`, which follows `up` unless `sharing.magnitude` is given.
    """

    parts = ("down", "up", "magnitude")

    method: Literal["lora"] = "lora"
    magnitude: bool = False

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """`down` `(in, rank)`, `up` `(rank, out)` and `magnitude` `(out,)`.

        Raises:
            ConfigError: If magnitudes are shared across maps, whose weights have lengths of their own.
        """
        pair = (
            TensorSpec("down.weight", (site.in_width, self.rank), fan_in(site.in_width), "down"),
            TensorSpec("up.weight", (self.rank, site.width), zeros, "up"),
        )
        if not self.magnitude:
            return pair
        length = TensorSpec("magnitude", (site.width,), ones, "magnitude", follows="up")
        axes = length.axes(self.sharing.at(site))
        if axes - {"task"} or self.sharing.layer_group > 1:
            raise ConfigError(
                "`sharing` may share `magnitude` across `task` alone, because it starts as the length of each "
                f"map's own weights, but shares it across {', '.join(sorted(axes)) or 'groups of layers'}. "
                "Write `magnitude: [task]` or `magnitude: []` in `sharing`."
            )
        return (*pair, length)

    def build(self, site: Site) -> LoRA[LoRAConfig]:
        """The computation at a linear map."""
        return DoRA(self, site) if self.magnitude else LoRA(self, site)


Update = TypeVar("Update", bound=LowRankUpdateConfig)


class LoRA(ConfiguredUnit[Update]):
    """The computation."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the update of `inputs`, shapes `(rows, ..., out)` and `(rows, ..., in)`."""
        from weft.kernels import BottleneckWeights, adapter_bottleneck

        whole = self.site.rows is None
        update = adapter_bottleneck(
            inputs.to(output.dtype),
            BottleneckWeights(*self.matrices(weights)),
            weights.routed,
            residual=output if whole else None,
            scale=self.config.scale,
            activation="identity",
            input_dropout=self.config.dropout if weights.training else 0.0,
        )
        return update if whole else added_to_part(output, update, self.site.rows)

    def matrices(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """The slots of `A` and `B`, shapes `(slots, in, rank)` and `(slots, rank, out)`."""
        return weights["down.weight"], weights["up.weight"]

    def merge(self, module: nn.Module, weights: Weights) -> None:
        """`W + scale · A B`, added in float32."""
        down, up = (value[_slot(value, weights)].float() for value in self.matrices(weights))
        weight = own_weight(module, self.site)
        weight.copy_(weight.float() + self.config.scale * (down @ up).mT)

    def combine(
        self, slots: Mapping[str, Tensor], factors: Tensor, own: frozenset[str]
    ) -> tuple[dict[str, Tensor], float]:
        """The sum of the updates: exact where tasks share a half, else the nearest of the same rank."""
        down, up = slots["down.weight"], slots["up.weight"]
        if "magnitude" in slots:
            return super().combine(slots, factors, own)
        if "down.weight" not in own:
            return {"up.weight": weighted_sum(up, factors)}, 0.0
        if "up.weight" not in own:
            return {"down.weight": weighted_sum(down, factors)}, 0.0
        return nearest_factors(down, up, factors)


class DoRA(LoRA[LoRAConfig]):
    """`y = b + m ⊙ (x W + s x A B) / ‖W + s A B‖`, the norm taken over the inputs of each output.

    Neither a matrix of ones and zeros nor the update itself is ever formed: the norm of each output is worked out
    from the factors.

    Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5; as in section 4.3, no
    gradient goes through the norm.
    """

    def start(self, module: nn.Module, slots: Mapping[str, Tensor]) -> None:
        """Set the magnitude to the norm of the module's weight, so that the model starts as the backbone."""
        if "magnitude" in slots:
            slots["magnitude"].copy_(norms(self._weight(module)))

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """The output with direction and magnitude changed, shape `(rows, ..., out)`."""
        module = weights.module
        first, last = self.site.rows or (0, output.shape[-1])
        moved = super().after(output, inputs, weights)[..., first:last]
        bias = getattr(module, "bias", None)
        plain = moved if bias is None else moved - bias[first:last].to(moved.dtype)
        factor = across(of_rows(self.factors(weights) - 1, weights.task_ids), moved)
        changed = moved + plain * factor.to(moved.dtype)
        part = weights.keep_identity(changed, output[..., first:last])
        return part if self.site.rows is None else output.slice_scatter(part, -1, first, last)

    def merge(self, module: nn.Module, weights: Weights) -> None:
        """`m ⊙ (W + s A B) / ‖W + s A B‖`, worked out in float32."""
        import torch

        factor = self.factors(weights)
        slot = _slot(factor, weights)
        super().merge(module, weights)
        weight = own_weight(module, self.site)
        weight.copy_(weight.float() * factor[slot][:, None])
        own = weights.module.bias
        if isinstance(own, torch.Tensor) and weights.module is not module:
            first, last = self.site.rows or (0, self.site.out_width)
            # A unit before this one may have changed the bias, and what it added has a direction as well.
            bias: Tensor = module.bias[first:last]  # type: ignore[index]
            added = bias.float() - own[first:last].float()
            bias.copy_(own[first:last].float() + added * factor[slot])

    def factors(self, weights: Weights) -> Tensor:
        """`m / ‖W + s A B‖` for each slot of the part that has the most, shape `(slots, out)`."""
        import torch

        down, up = weights["down.weight"].detach(), weights["up.weight"].detach()
        with torch.no_grad():
            weight = self._weight(weights.module).to(down.dtype)
            norm = norms(weight)
            # ‖W + s A B‖² = ‖W‖² + 2 s <W, A B> + s² ‖A B‖², each per output.
            cross = ((weight @ down).mT * up).sum(dim=1)
            square = ((down.mT @ down @ up) * up).sum(dim=1)
            scale = self.config.scale
            relative = (2 * scale * cross + scale**2 * square) / norm.square()
            length = norm * (1 + relative).clamp_min(0).sqrt()
        return weights["magnitude"] / length

    def _weight(self, module: nn.Module) -> Tensor:
        if not is_map(getattr(module, "weight", None)):
            raise AttachError(
                f"`magnitude` needs a weight of floating-point numbers to take norms of, but "
                f"{type(module).__name__} has none. Set `magnitude: false` for quantised maps."
            )
        return own_weight(module, self.site).detach()


def nearest_factors(down: Tensor, up: Tensor, factors: Tensor) -> tuple[dict[str, Tensor], float]:
    """The two factors of one rank whose product is nearest to `Σ factor · down up`, and the error.

    The sum is never formed: its singular values are those of a matrix of the ranks together.

    Args:
        down: Shape `(tasks, in, rank)`.
        up: Shape `(tasks, rank, out)`.
        factors: Float64, shape `(tasks,)`.

    Returns:
        `down.weight` and `up.weight`, and the error in the Frobenius norm relative to the sum's.
    """
    import torch

    rank = down.shape[-1]
    scaled = down.double() * factors.to(down.device)[:, None, None]
    left, inner = torch.linalg.qr(scaled.transpose(0, 1).flatten(1))
    right, outer = torch.linalg.qr(up.double().flatten(0, 1).mT)
    u, values, v = torch.linalg.svd(inner @ outer.mT)
    count = min(rank, values.shape[0])
    root = values[:count].sqrt()
    kept = {
        "down.weight": torch.nn.functional.pad((left @ u[:, :count]) * root, (0, rank - count)),
        "up.weight": torch.nn.functional.pad((right @ v[:count].mT * root).mT, (0, 0, 0, rank - count)),
    }
    total = float(values.norm())
    error = float(values[count:].norm()) / total if total else 0.0
    return {name: value.to(down.dtype) for name, value in kept.items()}, error


def norms(weight: Tensor) -> Tensor:
    """Norm of every output's weights in float32, shape `(out,)`.

    Args:
        weight: Shape `(out, in)`.
    """
    import torch

    return torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32)


def _slot(values: Tensor, weights: Weights) -> Tensor | int:
    """Which of the slots belongs to the task of the first row."""
    return 0 if weights.task_ids is None or values.shape[0] == 1 else weights.task_ids[0]
