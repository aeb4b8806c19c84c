"""From single sites back to words: the fewest choices by tower, stack, block, role and layer that are exactly these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from weft.core.adapted.bank import store_of
from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import AddressError, CheckpointError, ConfigError
from weft.core.unit.method import parse_method
from weft.core.unit.protocol import UnitConfig


@dataclass(frozen=True, slots=True)
class Part:
    """One unit at one site: what its configuration says beside where it acts, and its tensors by name."""

    site: Site
    options: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def configured(sites: SiteMap, parts: Sequence[Part], method: str) -> list[UnitConfig]:
    """The fewest configurations of one method that are exactly these units, one for a site.

    Raises:
        CheckpointError: If an option has a value that it cannot have.
    """
    groups: dict[tuple[Any, ...], list[Site]] = {}
    for part in parts:
        groups.setdefault(tuple(part.options.items()), []).append(part.site)
    found: list[dict[str, Any]] = []
    for options, chosen in groups.items():
        inside = [site for site in chosen if site not in sites.maps]
        places: list[dict[str, Any]] = [words_for(group) for group in choices(sites, inside)]
        if len(inside) < len(chosen):
            places = places or [{"linears": ()}]
            places[0]["components"] = components_for(sites, [site for site in chosen if site in sites.maps])
        for place in places:
            name = {"name": f"{method}_{len(found) + 1}"} if found else {}
            found.append({"method": method, **name, **dict(options), **place})
    try:
        return list(parse_method(found))
    except ConfigError as error:
        raise CheckpointError(
            f"`folder` must hold settings that a unit can have, but {error}. Copy or save it again."
        ) from None


def fill_units(model: nn.Module, parts: Sequence[Part], task: str) -> None:
    """Give the units of a model, which were attached as `configured` says, the values that they have in the file."""
    store, values = store_of(model), {part.site.address: part.tensors for part in parts}
    for unit in store.plan.units:
        for name, value in values[unit.site.address].items():
            slot = store.banks_by_key[unit.banks[name]].slot_of(task)
            # Matrices that fit the largest map of a file may be larger than those of one configuration.
            slot.copy_(value[tuple(map(slice, slot.shape))])


def choices(sites: SiteMap, chosen: Sequence[Site]) -> list[tuple[Site, ...]]:
    """Groups of sites, all with a role or all without, each of which can be chosen by words alone.

    There is one where words can say it at once; together they are `chosen`.
    """
    if not chosen:
        return []
    if _is_choice(sites, tuple(chosen)):
        return [tuple(chosen)]
    by_kind: dict[tuple[str, ...], list[Site]] = {}
    for site in chosen:
        by_kind.setdefault((site.tower, site.stack, site.block, site.role), []).append(site)
    groups = [tuple(group) for group in by_kind.values()]
    while True:
        joined: list[tuple[Site, ...]] = []
        for group in groups:
            at = next((i for i, other in enumerate(joined) if _is_choice(sites, other + group)), None)
            if at is None:
                joined.append(group)
            else:
                joined[at] += group
        if len(joined) == len(groups):
            return groups
        groups = joined


def words_for(chosen: Sequence[Site]) -> dict[str, Any]:
    """The words of a configuration that choose these sites, if any do."""
    stacks = tuple(dict.fromkeys(site.stack for site in chosen))
    words: dict[str, Any] = {
        "blocks": tuple(dict.fromkeys(site.block for site in chosen)),
        "towers": tuple(dict.fromkeys(site.tower for site in chosen)),
        "stacks": stacks if all(stacks) else None,
        "layers": tuple(sorted({site.layer for site in chosen if site.layer is not None})),
    }
    roles = tuple(dict.fromkeys(site.role for site in chosen))
    return words if roles == ("",) else {**words, "linears": roles}


def components_for(sites: SiteMap, chosen: Sequence[Site]) -> tuple[str, ...]:
    """Components of which all linear maps are chosen, and the names of other maps outside the layers."""
    words: list[str] = []
    left = {site.role for site in chosen}
    for word in sites.components:
        own = {site.role for site in sites.maps_of(word)}
        if own and own <= left:
            words.append(word)
            left -= own
    return (*words, *(site.role for site in chosen if site.role in left))


def _is_choice(sites: SiteMap, chosen: tuple[Site, ...]) -> bool:
    words = words_for(chosen)
    roles = words.pop("linears", ("",))
    try:
        found = sites.select(**words, roles=roles)
    except AddressError:  # a word fits nothing beside the others
        return False
    return {site.address for site in found} == {site.address for site in chosen}
