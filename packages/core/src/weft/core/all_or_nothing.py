"""All or nothing: what fails half-way leaves the model as it was."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# What a module registers its parts in. It is refilled, not replaced: handles of hooks point to it.
_CONTAINERS = (dict, OrderedDict, list, set)


class Kept:
    """Tensors whose values can be put back."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, value: Tensor, *, on_host: bool = False) -> None:
        """Remember the present values of a tensor; what was kept first counts.

        With `on_host` in the host's memory, where they are many; shards stay where they are.
        """
        if id(value) in self._values:
            return
        there = on_host and not hasattr(value, "device_mesh")
        saved = value.detach().to("cpu", copy=True) if there and not value.is_meta else value.detach().clone()
        self._values[id(value)] = value, saved

    def put_back(self) -> None:
        """Give every kept tensor its values back, in place."""
        with torch.no_grad():
            for value, saved in self._values.values():
                value.copy_(saved)


@contextlib.contextmanager
def all_or_nothing(model: nn.Module) -> Iterator[Kept]:
    """Change a model, or on any error give every module back what it had: class, attributes and tensors.

    Modules, parameters and buffers that were there are there again as the same objects, with the trainability they
    had. Their *values* are put back only for tensors that were kept, because a copy of all would double the memory.

    Yields:
        Where to keep a tensor before its values are changed.
    """
    modules = [(module, type(module), dict(module.__dict__), _contents(module)) for module in model.modules()]
    trained = [(value, value.requires_grad) for value in model.parameters()]
    kept = Kept()
    try:
        yield kept
    except BaseException:
        for module, cls, attributes, contents in modules:
            module.__class__ = cls
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for container, content in contents:
                _refill(container, content)
        for value, requires_grad in trained:
            value.requires_grad_(requires_grad)
        kept.put_back()
        raise


def _contents(module: nn.Module) -> list[tuple[Any, Any]]:
    return [(value, value.copy()) for value in module.__dict__.values() if type(value) in _CONTAINERS]


def _refill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)
