"""Prefix tuning: trained keys and values in front of those of every attention.

Source: Li and Liang 2021, with the network of section 4.3 as an option. The vectors have no positions, and
every query sees them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from weft.core.backbone.sites import Block, Site, SiteMap
from weft.core.unit.initialisers import normal
from weft.core.unit.layers import affine_tensors, of_rows, slot_affine
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor

    from weft.core.unit.attention import Attention


@register_unit
class PrefixConfig(UnitConfig):
    """`attention(Q, [P_k; K], [P_v; V])`, with trained `P_k` and `P_v` at every attention.

    With `hidden_size`, `P_k` and `P_v` are two outputs of one network of a table:
    `tanh(E W + b) W_k + b_k` and `tanh(E W + b) W_v + b_v`.

    It cannot start as the backbone: attention gives every added key a share, also one of zeros.

    Args:
        length: Keys and values added.
        hidden_size: Width of the network's hidden layer; None leaves the network out.
        blocks: Attentions meant, `attention` and `cross_attention`; by default all there are.

    Parts: `prefix`, which is the vectors, and `network`, which follows them unless `sharing.network` is given.
    """

    parts = ("prefix", "network")
    roles = ("key",)
    requires = ("rows",)
    start_fields = None

    method: Literal["prefix"] = "prefix"
    length: int = Field(default=20, ge=1)
    hidden_size: int | None = Field(default=None, ge=1)
    blocks: tuple[Block, ...] | None = None

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The attentions: the modules that hold the maps to keys."""
        return tuple(
            replace(site, role="", rows=None, in_width=site.width, out_width=site.width).rewired(
                path=site.path.rpartition(".")[0]
            )
            for site in super().select(sites)
        )

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """`key` and `value`, each `(length, width)`, or a table of that shape and the network's layers."""
        width, hidden, draw = site.width, self.hidden_size, normal(0.02)
        if hidden is None:
            return tuple(TensorSpec(name, (self.length, width), draw, "prefix") for name in ("key", "value"))
        network: dict[str, Any] = {"part": "network", "follows": "prefix"}
        return (
            TensorSpec("table", (self.length, width), draw, "prefix"),
            *affine_tensors("inner", width, hidden, draw, **network),
            *affine_tensors("key", hidden, width, draw, **network),
            *affine_tensors("value", hidden, width, draw, **network),
        )

    def build(self, site: Site) -> Prefix:
        """The computation at an attention."""
        return Prefix(self, site)


class Prefix(ConfiguredUnit[PrefixConfig]):
    """The computation."""

    def attend(self, attention: Attention, weights: Weights) -> None:
        """Put the prefix in front of keys and values; rows of task -1 do not see it."""
        rows, heads, _, size = attention.key.shape
        found = []
        for vectors in self.vectors(weights):
            # `(slots, length, width)` to `(rows, heads, length, head size)`.
            split = vectors.unflatten(-1, (heads, size)).transpose(1, 2)
            found.append(of_rows(split, weights.task_ids).expand(rows, -1, -1, -1))
        visible = None if weights.task_ids is None else weights.task_ids >= 0
        attention.prepend(found[0], found[1], visible)

    def vectors(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots, each of shape `(slots, length, width)`."""
        import torch

        if self.config.hidden_size is None:
            return weights["key"], weights["value"]
        # A network that all tasks share serves the table of each, and the other way round.
        hidden = torch.tanh(slot_affine(weights["table"], weights, "inner"))
        return slot_affine(hidden, weights, "key"), slot_affine(hidden, weights, "value")
