"""From single sites back to words: the fewest choices by tower, stack, block, role and layer that are exactly these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import AddressError


def choices(sites: SiteMap, chosen: Sequence[Site]) -> list[tuple[Site, ...]]:
    """Groups of sites, each of which can be chosen by words alone.

    Args:
        sites: The backbone.
        chosen: The sites, all with a role or all without; each once.

    Returns:
        One group where words can say it at once, otherwise several; together they are `chosen`.
    """
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
    """The words of a configuration that choose these sites, if any do.

    Args:
        chosen: The sites.
    """
    stacks = tuple(dict.fromkeys(site.stack for site in chosen))
    words: dict[str, Any] = {
        "blocks": tuple(dict.fromkeys(site.block for site in chosen)),
        "towers": tuple(dict.fromkeys(site.tower for site in chosen)),
        "stacks": stacks if all(stacks) else None,
        "layers": tuple(sorted({site.layer for site in chosen if site.layer is not None})),
    }
    roles = tuple(dict.fromkeys(site.role for site in chosen))
    return words if roles == ("",) else {**words, "linears": roles}


def _is_choice(sites: SiteMap, chosen: tuple[Site, ...]) -> bool:
    words = words_for(chosen)
    roles = words.pop("linears", ("",))
    try:
        found = sites.select(**words, roles=roles)
    except AddressError:  # a word fits nothing beside the others
        return False
    return {site.address for site in found} == {site.address for site in chosen}
