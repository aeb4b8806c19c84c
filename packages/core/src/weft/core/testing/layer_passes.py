"""Passes of a model's layers, watched from outside: what each module within a layer read and returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.backbone.module_paths import below
from weft.core.backbone.sites import SiteMap

Change = Callable[[Tensor], Tensor]
Seen = dict[str, tuple[Tensor, Tensor]]
READ, RETURNED = 0, 1


class WatchedLayers:
    """The layers of a model in one pass, and again with one module's output changed.

    A layer that is called several times is seen in the call that runs most of its modules. `seen` has the modules of
    each layer, `around` those outside of all: every tensor that they read, and the first that they return. Features
    that lie before height and width, as the sites tell, are noted as the last axis.
    """

    def __init__(self, model: nn.Module, batch: dict[str, Any], sites: SiteMap) -> None:
        self.model = model
        self.seen: dict[str, Seen] = {}
        self._calls: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._again: dict[tuple[object, ...], Seen] = {}
        self._maps = tuple(f"{site.path}." for site in sites.sites if site.channels_first)
        self.around: dict[str, tuple[list[Tensor], Tensor]] = {}
        fronts = tuple(f"{layer}." for layer in sites.layers)
        hooks = [hook for path in sites.layers for hook in self._watch(path)]
        hooks += [
            module.register_forward_hook(self._note_around(path), with_kwargs=True)
            for path, module in model.named_modules()
            if path and not f"{path}.".startswith(fronts)
        ]
        with torch.no_grad():
            model(**batch)
        for hook in hooks:
            hook.remove()

    def _watch(self, layer: str) -> list[Any]:
        module, now = self.model.get_submodule(layer), Seen()

        def enter(*_: Any) -> None:
            now.clear()

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if len(now) >= len(self.seen.get(layer, ())):
                self.seen[layer] = dict(now)
                caches = kwargs.get("past_key_values") is not None
                self._calls[layer] = args, {**kwargs, "past_key_values": None} if caches else kwargs

        # The layer's own output is noted before the call is kept.
        return [
            module.register_forward_pre_hook(enter),
            *self._noting(layer, now),
            module.register_forward_hook(leave, with_kwargs=True),
        ]

    def _note_around(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            first = _first(output)
            if isinstance(first, Tensor):
                read = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
                self.around[path] = read, first

        return hook

    def _noting(self, layer: str, seen: Seen) -> list[Any]:
        is_map = self._is_map(layer)
        return [
            child.register_forward_hook(_note(below(layer, name), seen, is_map=is_map), with_kwargs=True)
            for name, child in self.model.get_submodule(layer).named_modules()
        ]

    def _is_map(self, layer: str) -> bool:
        return any(path.startswith(f"{layer}.") for path in self._maps)

    def again(self, layer: str, path: str, change: Change, *key: object) -> Seen:
        """What the modules of a layer read and return where one of them returns something else.

        The key tells the change from others.
        """
        found = (layer, path, *key)
        if found not in self._again:
            args, kwargs = self._calls[layer]
            is_map = self._is_map(layer)

            def changed(module: nn.Module, args: Any, output: Tensor) -> Tensor:
                return change(output.movedim(1, -1)).movedim(-1, 1) if is_map else change(output)

            seen = Seen()
            hooks = [
                self.model.get_submodule(path).register_forward_hook(changed),
                *self._noting(layer, seen),
            ]
            with torch.no_grad():
                self.model.get_submodule(layer)(*args, **kwargs)
            for hook in hooks:
                hook.remove()
            self._again[found] = seen
        return self._again[found]


def _first(output: Any) -> Any:
    values = tuple(output.values()) if isinstance(output, dict) else output
    return values[0] if isinstance(values, tuple | list) and values else values


def _note(path: str, seen: Seen, *, is_map: bool) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        read = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        read = kwargs.get("hidden_states", read) if not args else read
        first = _first(output)
        if isinstance(read, Tensor) and isinstance(first, Tensor):
            seen[path] = (read.movedim(1, -1), first.movedim(1, -1)) if is_map else (read, first)

    return hook
