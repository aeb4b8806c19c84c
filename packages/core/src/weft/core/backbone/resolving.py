"""Resolving: the sites of one backbone, found from what its family declares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import nn

from weft.core.backbone.family import BlockSpec, Family, Fused, Place, Stack, families, read_structure
from weft.core.backbone.module_paths import Paths, alternatives, at, below, existing, first, within
from weft.core.backbone.outside_sites import map_sites
from weft.core.backbone.sites import Block, Modality, Site, SiteMap
from weft.core.backbone.wiring import Residual, Wiring
from weft.core.errors import BackboneError, unknown


def resolve(model: nn.Module) -> SiteMap:
    """Find the sites of a backbone of a known family, which may be on the meta device.

    Raises:
        BackboneError: If its family is unknown, or a module that the family names is not there.
    """
    found = _resolve(model)
    # The whole model is no site.
    return replace(found, sites=tuple(site for site in found.sites if site.path))


@dataclass
class _Found:
    """What is found in a model and its parts so far; the fields are those of a site map."""

    family: list[str] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    maps: list[Site] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)
    towers: dict[str, list[str]] = field(default_factory=dict)
    components: dict[str, list[str]] = field(default_factory=dict)
    siteless: set[str] = field(default_factory=set)
    read_by_structure: tuple[str, ...] = ()
    unread: dict[str, str] = field(default_factory=dict)


def _resolve(model: nn.Module, tower: Modality | None = None) -> SiteMap:
    family, model_type, undeclared = _family_of(model, tower)
    required = family.model_types[model_type]
    found = _Found([family.name], read_by_structure=undeclared)
    for word, paths in family.towers.items():
        _extend(found.towers, word, _tower_paths(model, paths))
    for stack in family.stacks:
        if stack.tower in required:
            _add_stack(model, family, stack, found.sites, found.layers)
    for word, paths in family.components.items():
        _extend(found.components, word, existing(model, paths))
    # A family without stacks has towers all the same: they are frozen or trained, but hold no site.
    found.siteless = set() if family.stacks else set(found.towers)
    places = [place for place in family.places if place.tower in required]
    own = [site for place in places for site in _place_sites(model, place)]
    for attribute in family.nested:
        _add_part(found, model, family, attribute, {site.address for site in own})
    found.sites.extend(own)
    taken = {site.path for site in (*found.sites, *found.maps) if site.role}
    outside = [(place.path, place.modality, place.block) for place in family.outside]
    found.maps.extend(map_sites(model, outside, found.components, taken))
    _leave_out(found, model, family)
    held = found.siteless | {site.tower for site in found.sites}
    present = tuple(word for word in found.towers if word in held)
    _check_towers(model, family, model_type, present)
    return SiteMap(
        family="+".join(found.family),
        sites=_owned(family, found.sites),
        towers={word: tuple(found.towers[word]) for word in present},
        components={word: tuple(paths) for word, paths in found.components.items() if paths},
        layers=found.layers,
        default_towers=_default_towers(family, found, present),
        owners=family.owners,
        maps=_owned(family, found.maps),
        read_by_structure=tuple(dict.fromkeys(found.read_by_structure)),
        unread=found.unread,
    )


def _leave_out(found: _Found, model: nn.Module, family: Family) -> None:
    """Note the towers that may be of another kind than the family's stacks, and are: they hold no site."""
    for stack in family.stacks:
        tower = stack.tower
        if tower not in family.optional_towers or any(site.tower == tower for site in found.sites):
            continue
        if paths := found.towers.get(tower):
            kind = type(at(model, paths[0])).__name__
            found.unread[tower] = (
                f"The {kind} at `{paths[0]}` has no layers that family {family.name!r} knows."
            )
            found.siteless.add(tower)


def _default_towers(family: Family, found: _Found, present: Sequence[str]) -> tuple[str, ...]:
    named = tuple(word for word in family.default_towers if word in present)
    return named or tuple(word for word in present if word not in found.unread) or tuple(present)


def _add_part(
    found: _Found, model: nn.Module, family: Family, attribute: str, taken: Collection[str]
) -> None:
    """Take over what a nested backbone holds, with its path in front; `taken` are addresses of the whole model."""
    child = at(model, attribute)
    if child is None:
        return
    tower: Modality | None = (
        "vision" if attribute in alternatives(family.components.get("vision", ())) else None
    )
    try:
        inner = _resolve(child, tower)
    except BackboneError as error:
        if tower not in family.optional_towers:
            raise
        found.unread[str(tower)] = str(error)
        found.siteless.add(str(tower))
        _extend(found.towers, str(tower), [attribute])
        return
    found.family.append(inner.family)
    found.read_by_structure += inner.read_by_structure
    found.unread.update(inner.unread)
    found.siteless |= set(inner.towers)
    # A place of the whole model goes before one of its part with the same address. What holds a tower may read its
    # layers one by one, and would find a prompt's rows there.
    kept = [site for site in inner.sites if site.address not in taken and site.wiring.whole != "embeddings"]
    found.sites.extend(_moved(site, attribute) for site in kept)
    found.maps.extend(_moved(site, attribute) for site in inner.maps)
    found.layers.update({below(attribute, path): front for path, front in inner.layers.items()})
    for source, target in ((inner.towers, found.towers), (inner.components, found.components)):
        for word, paths in source.items():
            _extend(target, word, [below(attribute, path) for path in paths])


def _owned(family: Family, sites: Iterable[Site]) -> tuple[Site, ...]:
    return tuple(
        replace(site, owned=True) if family.owners is not None and site.modality != "text" else site
        for site in sites
    )


def _family_of(model: nn.Module, tower: Modality | None) -> tuple[Family, str, tuple[str, ...]]:
    """The family of a model, its type, and the type once more if its layers are read though nobody declared it."""
    known = families()
    model_type = _model_type(model, known)
    declared = None if model_type is None else known.get(model_type)
    if declared is not None and not declared.by_structure:
        return declared, str(model_type), ()
    try:
        read = read_structure(model, tower)
    except BackboneError as error:
        hint = unknown("`config.model_type`", model_type, known)
        raise BackboneError(
            f"{hint} Nor can its structure be read: {error} A family from outside is added with `register_family`."
        ) from error
    if declared is not None:
        return replace(read, owners=declared.owners), next(iter(read.model_types)), ()
    return read, next(iter(read.model_types)), (str(model_type),)


def _model_type(model: nn.Module, known: Mapping[str, Family]) -> str | None:
    model_type: str | None = getattr(getattr(model, "config", None), "model_type", None)
    if model_type is not None:
        return model_type
    classes = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__)
    return next((name for name in classes if name in known), None)


def _check_towers(model: nn.Module, family: Family, model_type: str, present: Sequence[str]) -> None:
    for tower in family.model_types[model_type]:
        if tower not in present:
            raise BackboneError(
                f"family {family.name!r} expects a tower {tower!r} in a model of type {model_type!r}, but "
                f"its modules are not there. The class is {type(model).__name__}; its children are "
                f"{', '.join(name for name, _ in model.named_children())}."
            )


def _place_sites(model: nn.Module, place: Place) -> Iterator[Site]:
    """The site of a place, if the model has it."""
    path = first(model, place.path)
    if path is None:
        return
    module = at(model, path)
    sized = first(module, place.width or "")
    if sized is not None:
        in_width, out_width = _widths(at(module, sized))
        yield Site(
            tower=place.tower,
            stack=place.name,
            layer=None,
            block=place.block,
            wiring=Wiring(
                path,
                whole=place.whole,
                positions=within(module, path, place.positions),
                reader=first(model, place.reader),
            ),
            in_width=in_width,
            out_width=out_width,
            modality=place.modality,
        )


def _add_stack(
    model: nn.Module, family: Family, stack: Stack, sites: list[Site], layers: dict[str, str]
) -> None:
    found = first(model, stack.layers)
    if found is None:
        return
    for index, layer in enumerate(at(model, found).children()):
        path = f"{found}.{index}"
        front = ".".join(word for word in (stack.tower, stack.name, str(index)) if word)
        layers[path] = front
        blocks = stack.blocks(layer) if callable(stack.blocks) else stack.blocks
        for block, spec in blocks.items():
            sites.extend(_block_sites(layer, path, family, stack, index, block, spec))


def _block_sites(
    layer: nn.Module, path: str, family: Family, stack: Stack, index: int, block: Block, spec: BlockSpec
) -> Iterator[Site]:
    output = first(layer, spec.output)
    if output is None:
        if spec.optional:
            return
        raise BackboneError(
            f"family {family.name!r} expects {' or '.join(alternatives(spec.output))} in `{path}`, but the "
            f"layer has {', '.join(name for name, _ in layer.named_children())}. This release of "
            "transformers may name it otherwise: add the name to the family."
        )
    width_module = at(layer, existing(layer, spec.width or spec.output)[0])
    source = existing(layer, spec.source or spec.output)[0]
    common: dict[str, Any] = {
        "tower": stack.tower,
        "stack": stack.name,
        "layer": index,
        "block": block,
        "modality": stack.modality,
        "packed": stack.packed,
        "channels_first": isinstance(width_module, nn.Conv2d),
    }
    out_width = _widths(width_module)[1]
    residual = Residual(*(within(layer, path, each) for each in (spec.before, spec.behind, spec.norm)))
    wiring = Wiring(f"{path}.{output}", f"{path}.{source}", residual)
    entry = first(layer, spec.entry)
    in_width = out_width if entry is None else at(layer, entry).in_channels
    yield Site(wiring=wiring, in_width=in_width, out_width=out_width, **common)
    for role, where in spec.linears.items():
        fused = where if isinstance(where, Fused) else Fused(where, 0, 1)
        linear = first(layer, fused.path)
        if linear is not None:
            width_in, width_out = _widths(at(layer, linear))
            share = width_out // fused.count
            rows = None if fused.count == 1 else (fused.index * share, (fused.index + 1) * share)
            yield Site(
                wiring=Wiring(f"{path}.{linear}"),
                in_width=width_in,
                out_width=width_out,
                role=role,
                rows=rows,
                **common,
            )


def _widths(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Embedding):
        return module.embedding_dim, module.embedding_dim
    if isinstance(module, nn.Conv2d):
        return _channels(module)
    features = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if features[0] is not None and features[1] is not None:
        return int(features[0]), int(features[1])
    weight = getattr(module, "weight", None)
    if weight is None:
        raise BackboneError(
            f"the width of a site must be readable from its module, but {type(module).__name__} has neither "
            "`out_features` nor `weight`. Name a linear map as `width` in the family."
        )
    return int(weight.shape[-1]), int(weight.shape[0])


def _channels(module: nn.Conv2d) -> tuple[int, int]:
    """Channels of a convolution that is a linear map at every place."""
    if module.kernel_size != (1, 1) or module.stride != (1, 1) or module.groups != 1:
        raise BackboneError(
            f"a convolution that a family names must be 1×1, with stride 1 and one group, but one is {module}. Others "
            "mix places, or see no other channel: name the 1×1 convolutions alone."
        )
    return module.in_channels, module.out_channels


def _moved(site: Site, prefix: str) -> Site:
    def moved(paths: Wiring | Residual, *but: str) -> dict[str, str]:
        named = {each.name: getattr(paths, each.name) for each in fields(paths) if each.name not in but}
        return {name: below(prefix, path) for name, path in named.items() if path is not None}

    residual = replace(site.wiring.residual, **moved(site.wiring.residual))
    return site.rewired(residual=residual, **moved(site.wiring, "residual", "whole"))


def _tower_paths(model: nn.Module, paths: Paths) -> list[str]:
    # The whole model is the tower only where none of its parts is.
    named = tuple(path for path in alternatives(paths) if path)
    return existing(model, named) or ([""] if "" in alternatives(paths) else [])


def _extend(target: dict[str, list[str]], word: str, paths: list[str]) -> None:
    target.setdefault(word, []).extend(path for path in paths if path not in target.get(word, []))
