"""Units inside attention: what a unit adds to the keys and values of a sub-layer.

`transformers` looks its attention function up by a name in the module's config. A module whose attention a
unit changes gets a copy of that config with our name in it, and our function calls the one that was meant.
The config that the model shares between its modules is not touched.

The name is registered where a module is given it, not when this file is imported: whoever has such a module has
loaded the models of `transformers`, which take seconds.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.core.errors import AttachError

_NAME = "weft"
_CONFIG = "_weft_config"
_SITE = "_weft_site"


@dataclass
class Attention:
    """What one call of an attention function gets.

    Args:
        queries: Number of query tokens.
        key: Shape `(rows, key heads, keys, head size)`.
        value: Shape `(rows, key heads, keys, head size)`.
        mask: Shape `(rows or 1, 1 or heads, queries, keys)`, True or 0 where a query may look; None stands
            for no limit.
        bias: What is added to the scores, shape `(rows or 1, heads, queries, keys)`, or None.
        additive: Whether a mask is added to the scores instead of being of truth values.
    """

    queries: int
    key: Tensor
    value: Tensor
    mask: Tensor | None
    bias: Tensor | None
    additive: bool

    def prepend(self, key: Tensor, value: Tensor, visible: Tensor | None) -> None:
        """Put keys and values that every query sees in front of the others.

        Args:
            key: Shape `(rows, key heads, length, head size)`.
            value: The same shape.
            visible: Rows that see them, shape `(rows,)` of truth values; None stands for all.
        """
        length, kept = key.shape[2], self.key.shape[2]
        if self.mask is None and visible is not None:
            self.mask = self._open(self.key.new_zeros((), dtype=torch.bool), kept)
        if self.mask is not None:
            mask = self.mask[..., :kept]
            seen = self._open(mask, length)
            if visible is not None:
                shut = torch.finfo(self.key.dtype).min if self.additive else False
                seen = torch.where(visible[:, None, None, None], seen, shut)
            shape = torch.broadcast_shapes(mask.shape[:-1], seen.shape[:-1])
            self.mask = torch.cat([seen.expand(*shape, -1), mask.expand(*shape, -1)], dim=-1)
        if self.bias is not None:
            self.bias = functional.pad(self.bias, (length, 0))
        self.key = torch.cat([key.to(self.key.dtype), self.key], dim=2)
        self.value = torch.cat([value.to(self.value.dtype), self.value], dim=2)

    def _open(self, like: Tensor, length: int) -> Tensor:
        shape = (1, 1, self.queries, length)
        if self.additive:
            return torch.zeros(shape, dtype=self.key.dtype, device=self.key.device)
        return torch.ones(shape, dtype=torch.bool, device=like.device)


def reach_attention(module: nn.Module, path: str) -> None:
    """Let the units at a module change its attention.

    Raises:
        AttachError: If the module does not look its attention function up, so that a unit would do nothing.
    """
    if _CONFIG in module.__dict__:
        return
    config: Any = getattr(module, "config", None)
    if not looks_up_attention(module):
        raise AttachError(
            f"`{path}` must call an attention function of transformers by name for a unit to add keys to it, "
            f"but {type(module).__name__} of this release computes its attention itself. Choose other "
            "`towers` or `blocks`, or another method."
        )
    know_name()
    ours = copy.copy(config)
    ours._attn_implementation_internal = _NAME
    module.__dict__[_CONFIG] = config
    module.config = ours


def know_name() -> None:
    """Let `transformers` find our attention function by its name in this process."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)


def restore_attention(state: Mapping[str, Any]) -> None:
    """Know the name in the process that reads the attributes of a pickled module whose attention units change."""
    if _CONFIG in state:
        know_name()


def looks_up_attention(module: nn.Module) -> bool:
    """Whether a module finds its attention function by the name in its config, in this release."""
    return getattr(module, "config", None) is not None and bool(_globals(module))


def release_attention(module: nn.Module) -> None:
    """Give a module back the config it had."""
    config = module.__dict__.pop(_CONFIG, None)
    if config is not None:
        module.config = config


def _globals(module: nn.Module) -> dict[str, Any]:
    """The names of the file that defines a module's class; empty if its attention is not looked up there."""
    for cls in type(module).__mro__:
        names = vars(sys.modules[cls.__module__])
        if "ALL_ATTENTION_FUNCTIONS" in names:
            return names
    return {}


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    meant = module.__dict__[_CONFIG]._attn_implementation
    if meant not in ("eager", "sdpa"):
        raise AttachError(
            f"`attn_implementation` must be eager or sdpa where a unit adds keys, but is {meant!r}. Call "
            '`model.set_attn_implementation("sdpa")`.'
        )
    names = _globals(module)
    function = (
        names["eager_attention_forward"] if meant == "eager" else names["ALL_ATTENTION_FUNCTIONS"][meant]
    )
    units = [
        each for each in module.__dict__[_SITE].units if each.unit.changes_attention and each.store.enabled
    ]
    if not units:
        return function(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is None and meant == "sdpa":
        attention_mask = _causal(module, query, key, kwargs)
    bias = kwargs.get("position_bias")
    additive = meant == "eager" if attention_mask is None else attention_mask.dtype != torch.bool
    call = Attention(query.shape[2], key, value, attention_mask, bias, additive)
    for each in units:
        each.unit.attend(call, each.weights(key))
    if bias is not None:
        kwargs["position_bias"] = call.bias
    if "is_causal" in kwargs or meant == "sdpa":
        kwargs["is_causal"] = False  # the mask says it
    return function(module, query, call.key, call.value, call.mask, **kwargs)


def _causal(module: nn.Module, query: Tensor, key: Tensor, kwargs: dict[str, Any]) -> Tensor | None:
    """The mask that `sdpa` leaves to torch when a module is causal."""
    given = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if given is None else given
    queries, keys = query.shape[2], key.shape[2]
    if not causal or queries == 1:
        return None
    return torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()[None, None]
