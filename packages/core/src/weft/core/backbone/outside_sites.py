"""Sites of linear maps outside the layers: connectors, heads and the map onto the vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from torch import nn

from weft.core.backbone.module_paths import Paths, at, below, existing
from weft.core.backbone.sites import Block, Modality, Site
from weft.core.backbone.wiring import Wiring


def map_sites(
    model: nn.Module,
    places: Iterable[tuple[Paths, Modality, Block]],
    components: Mapping[str, Sequence[str]],
    taken: Collection[str],
) -> Iterator[Site]:
    """The linear maps of the modules that a family names as outside its layers, named after components.

    Maps within PyTorch's own attention, which reads their weights without calling them, are no sites, nor are those at
    paths that are taken.
    """
    seen: set[int] = set()
    for paths, modality, block in places:
        for path in existing(model, paths):
            for name, module in _linear_maps(at(model, path)):
                whole = below(path, name)
                if id(module) in seen or whole in taken:
                    continue
                seen.add(id(module))
                yield Site(
                    tower="text" if modality == "cross" else modality,
                    stack="",
                    layer=None,
                    block=block,
                    role=_name(model, components, whole),
                    wiring=Wiring(whole),
                    in_width=module.in_features,
                    out_width=module.out_features,
                    modality=modality,
                )


def _linear_maps(module: object) -> Iterator[tuple[str, nn.Linear]]:
    if isinstance(module, nn.Module) and not isinstance(module, nn.MultiheadAttention):
        if isinstance(module, nn.Linear):
            yield "", module
        for name, child in module.named_children():
            for inner, found in _linear_maps(child):
                yield below(name, inner), found


def _name(model: nn.Module, components: Mapping[str, Sequence[str]], path: str) -> str:
    """The word of the innermost component, its own name if it is one of several modules, and the path within it."""
    fronts = [
        (front, word)
        for word, paths in components.items()
        for front in paths
        if f"{path}.".startswith(f"{front}.") and isinstance(at(model, front), nn.Module)
    ]
    if not fronts:
        return path
    front, word = max(fronts, key=lambda each: len(each[0]))
    modules = [each for each in components[word] if isinstance(at(model, each), nn.Module)]
    own = front.rpartition(".")[2] if len(modules) > 1 else ""
    return ".".join(part for part in (word, own, path[len(front) + 1 :]) if part)
