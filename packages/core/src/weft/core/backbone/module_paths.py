"""Paths of modules, as families write them: alternatives of which a model has one, several or none."""

from __future__ import annotations

from typing import Any

from torch import nn

Paths = str | tuple[str, ...]


def below(prefix: str, path: str) -> str:
    """A path below another one.

    Args:
        prefix: The outer path.
        path: The inner one; the empty path is the outer module itself.
    """
    return f"{prefix}.{path}" if path else prefix


def alternatives(paths: Paths) -> tuple[str, ...]:
    """The paths as a tuple."""
    return (paths,) if isinstance(paths, str) else paths


def existing(model: nn.Module, paths: Paths, *, all_of_them: bool = False) -> list[str]:
    """The paths that lead somewhere.

    Args:
        model: Where they start.
        paths: Alternatives in order; the empty path is the model itself.
        all_of_them: Whether all are meant, instead of the first.
    """
    found = [path for path in alternatives(paths) if path == "" or at(model, path) is not None]
    return found if all_of_them else found[:1]


def at(model: nn.Module, path: str) -> Any:
    """What a path leads to, a module, a parameter or None."""
    node: Any = model
    for word in path.split("."):
        node = getattr(node, word, None)
        if node is None:
            return None
    return node


def within(module: nn.Module, path: str, paths: Paths | None) -> str | None:
    """The first of some paths below a module, from the root; or None.

    Args:
        module: The module.
        path: Its own path.
        paths: Alternatives below it.
    """
    found = [] if paths is None else existing(module, paths)
    return below(path, found[0]) if found else None
