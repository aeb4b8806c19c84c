"""Paths of modules, as families write them: alternatives of which a model has one, several or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

Paths = str | tuple[str, ...]


def below(prefix: str, path: str) -> str:
    """A path below another one; the empty path is the outer module itself."""
    return f"{prefix}.{path}" if path else prefix


def alternatives(paths: Paths) -> tuple[str, ...]:
    """The paths as a tuple."""
    return (paths,) if isinstance(paths, str) else paths


def existing(model: nn.Module, paths: Paths) -> list[str]:
    """The paths that lead somewhere, in order; the empty path is the model itself."""
    return [path for path in alternatives(paths) if at(model, path) is not None]


def first(model: nn.Module, paths: Paths | None) -> str | None:
    """The first path that leads somewhere."""
    return None if paths is None else next(iter(existing(model, paths)), None)


def at(model: nn.Module, path: str) -> Any:
    """What a path leads to, a module, a parameter or None; the empty path is the model itself."""
    node: Any = model
    for word in path.split(".") if path else ():
        node = getattr(node, word, None)
        if node is None:
            return None
    return node


def is_inside(path: str, others: Iterable[str]) -> bool:
    """Whether a path is one of some others or below one; the empty path is the model itself."""
    return any(other == "" or f"{path}.".startswith(f"{other}.") for other in others)


def within(module: nn.Module, path: str, paths: Paths | None) -> str | None:
    """The first of some paths below a module, from the root; or None."""
    found = first(module, paths)
    return None if found is None else below(path, found)
