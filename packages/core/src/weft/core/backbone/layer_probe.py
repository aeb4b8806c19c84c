"""Probing a layer: what its code does with the residual stream, found by running it around stand-ins for its children.

Sub-layers give values that are known, norms scale what they read, and what arrives where tells the rest. Nothing of
the layer is computed or changed, so that it may be on any device, the meta device included, and be quantised.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.backbone.sites import Block
from weft.core.errors import BackboneError

# Few, since layers are many; not two or three, which are lengths of tuples that layers unpack.
_ROWS, _LENGTH = 4, 2


@dataclass(frozen=True, slots=True)
class Flow:
    """How a sub-layer is placed in its layer.

    Args:
        stream: Child whose input is the residual stream before the sub-layer: a norm, or the sub-layer itself.
        output: Child whose output is added to that stream: the sub-layer itself, or a norm or scale after it.
    """

    stream: str
    output: str


def probe(layer: nn.Module, sublayers: Mapping[Block, str], width: int) -> dict[str, Flow]:
    """How sub-layers, by what they are, are placed in a layer of some width, which is not changed, by their names.

    Raises:
        BackboneError: If the layer does something else than adding what its sub-layers make of the stream.
    """
    refused, failed = [], []
    # How many values an attention and a feed-forward block return, the output first.
    for attention, ffn in product((2, 3, 1), (1, 2)):
        counts = {name: ffn if block == "ffn" else attention for block, name in sublayers.items()}
        try:
            return _Run(layer, counts, width).flows()
        except BackboneError as error:
            refused.append(str(error))
        except Exception as error:  # whatever the layer's code of any release does with stand-ins
            failed.append(f"its code fails on stand-ins for its children ({type(error).__name__}: {error})")
    raise BackboneError((refused or failed)[0])


class _Run:
    """Runs of one layer around stand-ins."""

    def __init__(self, layer: nn.Module, counts: Mapping[str, int], width: int) -> None:
        self.layer = layer
        self.counts = counts
        self.generator = torch.Generator("cpu").manual_seed(0)
        self.stream = self._values(_ROWS, _LENGTH, width)
        self.values = {name: self._values(_ROWS, _LENGTH, width) for name in counts}
        self.factors = {name: 2.0 + index for index, (name, _) in enumerate(layer.named_children())}

    def _values(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64, device="cpu")

    def flows(self) -> dict[str, Flow]:
        """What the runs show.

        Raises:
            BackboneError: If they show something else than a layer of sub-layers and norms.
        """
        silent, _ = self._run(())
        if not _equal(silent, self.stream):
            raise BackboneError("with its sub-layers silenced, the layer does not return what it was given")
        before = self.stream
        found: dict[str, Flow] = {}
        _, heard = self._run(tuple(self.values))
        for name in (child for child in heard if child in self.values):
            after, seen = self._run((*found, name))
            if _equal(after, before):
                raise BackboneError(f"its child {name!r} adds nothing to what the layer returns")
            found[name] = self._flow(name, seen, (self.stream, before))
            before = after
        return found

    def _flow(self, name: str, seen: Mapping[str, Tensor], streams: tuple[Tensor, ...]) -> Flow:
        # A sub-layer beside another reads what the layer read; one after it what has been added so far.
        reading = {child for child, value in seen.items() if any(_equal(value, each) for each in streams)}
        given = seen[name]
        norms = [
            child
            for child in reading
            if child not in self.values and _equal(given, self._scaled(child, seen))
        ]
        if not norms and name not in reading:
            raise BackboneError(f"its child {name!r} reads neither the residual stream nor a norm of it")
        output, value = name, self.values[name]
        for child, arrived in seen.items():
            if child not in self.values and _equal(arrived, value):
                output, value = child, self._scaled(child, seen)
        return Flow(norms[0] if norms else name, output)

    def _scaled(self, child: str, seen: Mapping[str, Tensor]) -> Tensor:
        return seen[child] * self.factors[child]

    def _run(self, speaking: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """What the layer returns, and what each child read, in order, where only some sub-layers are not silent."""
        seen: dict[str, Tensor] = {}
        children = {
            name: self._stand_in(name, child, speaking, seen) for name, child in self.layer.named_children()
        }
        kind: Any = type(self.layer)
        while "_weft_base" in vars(kind):
            kind = vars(kind)["_weft_base"]
        shell = kind.__new__(kind)
        shell.__dict__ = {
            **self.layer.__dict__,
            "_modules": children,
            "_parameters": _ones(self.layer._parameters),
            "_buffers": _ones(self.layer._buffers),
            "training": False,
        }
        names = list(inspect.signature(kind.forward).parameters.values())[2:]
        needed = {each.name: None for each in names if each.default is each.empty and each.kind in _NAMED}
        with torch.no_grad(), torch.device("cpu"):
            result = kind.forward(shell, self.stream.clone(), **needed)
        return (result[0] if isinstance(result, tuple) else result), seen

    def _stand_in(
        self, name: str, child: nn.Module, speaking: Collection[str], seen: dict[str, Tensor]
    ) -> nn.Module:
        if name in self.values:
            value = self.values[name] if name in speaking else torch.zeros_like(self.stream)
            rest = (None,) * (self.counts[name] - 1)
            return _StandIn(seen, name, lambda read: (value, *rest) if rest else value)
        if _scales(name, child):
            return _StandIn(seen, name, lambda read: read * self.factors[name])
        if not any(True for _ in (*child.parameters(), *child.buffers())):
            quiet = copy.copy(child)
            quiet.training = False
            return quiet
        return _StandIn(seen, name, lambda read: self._values(*read.shape))


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _StandIn(nn.Module):
    """Takes a child's place: notes what it reads and gives something for it."""

    def __init__(self, seen: dict[str, Tensor], name: str, give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.__dict__.update(seen=seen, name=name, give=give)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Note the first tensor that is read, and give."""
        read = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        self.__dict__["seen"][self.__dict__["name"]] = read
        return self.__dict__["give"](read)


def _scales(name: str, child: nn.Module) -> bool:
    words = f"{name} {type(child).__name__}".lower()
    return any(True for _ in child.parameters()) and any(word in words for word in ("norm", "_ln", "scale"))


def _ones(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {
        name: None if value is None else torch.ones(value.shape, dtype=torch.float64, device="cpu")
        for name, value in tensors.items()
    }


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=1e-9, atol=1e-9))
