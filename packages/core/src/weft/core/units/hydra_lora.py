"""HydraLoRA: a low-rank update with one matrix in and several out, which a router mixes for every token.

Source: Tian et al. 2024, "HydraLoRA: An Asymmetric LoRA Architecture for Efficient Fine-Tuning", equations 3 and 4,
with a scale as LoRA has and a router that reads the map's input. The paper states no loss for balance; the one that can
be added here is the importance loss of Shazeer et al. 2017, "Outrageously Large Neural Networks".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.unit.initialisers import fan_in, zeros
from weft.core.unit.layers import added_to_part, affine
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Weights, register_unit
from weft.core.units.lora import LowRankUpdateConfig

if TYPE_CHECKING:
    from torch import Tensor


@register_unit
class HydraLoRAConfig(LowRankUpdateConfig):
    """`y = x W + b + scale · Σ m_i (dropout(x) A) B_i` with `m = softmax(x G)`, every `B_i` zero at the start.

    Args:
        ups: Number of matrices `B_i`.
        balance: Factor of the auxiliary loss that keeps all `B_i` in use, the squared coefficient of variation of how
            much the tokens of a batch give to each, padding included; with several processes, of each one's part of
            the batch. See `weft.core.auxiliary_losses`.

    Parts: `down` (`A`), `up` (all `B_i`) and `router` (`G`).
    """

    parts = ("down", "up", "router")

    method: Literal["hydra_lora"] = "hydra_lora"
    ups: int = Field(default=3, ge=2)
    balance: float = Field(default=0.0, ge=0)

    @property
    def owes(self) -> bool:
        """Whether there is a loss for balance."""
        return self.balance > 0

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """`down` `(in, rank)`, `up` `(ups, rank, out)` and `router` `(in, ups)`."""
        draw = fan_in(site.in_width)
        return (
            TensorSpec("down.weight", (site.in_width, self.rank), draw, "down"),
            TensorSpec("up.weight", (self.ups, self.rank, site.width), zeros, "up"),
            TensorSpec("router.weight", (site.in_width, self.ups), draw, "router"),
        )

    def build(self, site: Site) -> HydraLoRA:
        """The computation at a linear map."""
        return HydraLoRA(self, site)


class HydraLoRA(ConfiguredUnit[HydraLoRAConfig]):
    """The computation."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the update of `inputs`, shapes `(rows, ..., out)` and `(rows, ..., in)`."""
        import torch
        from torch.nn import functional

        x = inputs.to(output.dtype)
        down, up, router = (weights.rows(f"{name}.weight") for name in ("down", "up", "router"))
        shares = torch.softmax(affine(x, router), dim=-1, dtype=torch.float32)
        if self.config.balance and weights.collects_losses:
            weights.owe(self.config.balance * _imbalance(shares, weights))
        hidden = affine(functional.dropout(x, self.config.dropout, weights.training), down)
        # All up-projections in one product: the hidden features once for each, times its share.
        spread = (shares.to(hidden.dtype)[..., None] * hidden[..., None, :]).flatten(-2)
        update = self.config.scale * affine(spread, up.flatten(1, 2))
        return weights.keep_identity(added_to_part(output, update, self.site.rows), output)


def _imbalance(shares: Tensor, weights: Weights) -> Tensor:
    """Squared coefficient of variation of what each up-projection gets, the mean over tasks with a router of their own.

    Args:
        shares: What each token gives to each, shape `(rows, ..., ups)`.
        weights: The tensors of the site.
    """
    given = shares.flatten(1, -2).mean(dim=1) if shares.dim() > 2 else shares
    tasks = max(weights["router.weight"].shape[0], weights["up.weight"].shape[0])
    ids = weights.task_ids
    if ids is None:
        totals = given.sum(dim=0, keepdim=True)
    else:
        # Rows of task -1 are gathered in a last line, which is left out.
        place = ids if tasks > 1 else ids.clamp_max(0)
        place = place.where(ids >= 0, place.new_tensor(tasks))
        totals = given.new_zeros(tasks + 1, given.shape[1]).index_add(0, place, given)[:tasks]
    present = totals.sum(dim=1) > 0
    mean = totals.mean(dim=1).where(present, 1.0)
    squares = totals.var(dim=1, correction=0) / mean.square()
    return squares.sum() / present.sum().clamp_min(1)
