"""Sites that a unit makes of those a family names: on the residual stream, and around a whole layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weft.core.backbone.sites import Position, Site, SiteMap
from weft.core.errors import ConfigError

_POSITIONS: dict[tuple[bool, bool], Position] = {
    (True, True): "only",
    (True, False): "first",
    (False, True): "last",
    (False, False): "",
}


def on_stream(site: Site, sites: SiteMap) -> Site:
    """A sub-layer's site that reads the residual stream before the sub-layer and writes onto the one after it.

    It needs `stream`. What only the layer as a whole returns is written to by the sub-layer's own output.
    """
    residual = site.wiring.residual
    inner = residual.behind if residual.behind not in sites.layers else None
    return site.rewired(path=inner or site.path, source=residual.before)


def around_layer(site: Site, sites: SiteMap, role: str = "") -> Site:
    """The whole layer of a sub-layer, whose input and output are the residual stream.

    Its address is the sub-layer's, but for a role that tells the two apart.
    """
    layer = next(path for path in sites.layers if site.path.startswith(f"{path}."))
    return replace(site, role=role).rewired(path=layer)


def in_turn(chosen: Sequence[Site], sites: SiteMap) -> tuple[Site, ...]:
    """The whole layers of some sub-layers, one of every layer, each with its position among those of its stack.

    Raises:
        ConfigError: If a layer is left out between two others.
    """
    stacks: dict[tuple[str, str], list[Site]] = {}
    for site in chosen:
        stacks.setdefault((site.tower, site.stack), []).append(site)
    found = []
    for within in stacks.values():
        layers = [site.layer for site in within if site.layer is not None]
        if layers != list(range(layers[0], layers[0] + len(within))):
            raise ConfigError(
                f"`layers` must follow one another where one hands something to the next, but are {layers}. Name all "
                "from the first to the last."
            )
        for place, site in enumerate(within):
            ends = place == 0, place == len(within) - 1
            found.append(replace(around_layer(site, sites), position=_POSITIONS[ends]))
    return tuple(found)


def stream_name(arguments: dict[str, Any]) -> str:
    """Name of the argument by which a layer gets the residual stream."""
    return "hidden_states" if "hidden_states" in arguments else next(iter(arguments))


def relative(path: str | None, layer: Site) -> str:
    """The path of a module within a layer that `around_layer` made."""
    return str(path).removeprefix(f"{layer.path}.")


def by_video(rows: int, frames: int, address: str) -> int:
    """Number of videos among the rows of a tower.

    Raises:
        ConfigError: If the rows are no whole number of videos.
    """
    if rows % frames:
        raise ConfigError(
            f"`frames` must divide the rows of {address} ({rows}), but is {frames}. Show every video by as many "
            "frames, and say how many in the method."
        )
    return rows // frames
