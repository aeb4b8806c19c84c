"""Sites that a unit makes of those a family names: on the residual stream, and around a whole layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import ConfigError

FIRST, LAST, ONLY = "first", "last", "only"


def on_stream(site: Site, family: str, method: str) -> Site:
    """A sub-layer's site that reads the residual stream before the sub-layer and writes onto the one behind it.

    Args:
        site: A sub-layer's site.
        family: Name of its family, for the message.
        method: Name of the unit, for the message.

    Raises:
        ConfigError: If the family does not say where the stream is.
    """
    if site.stream is None:
        raise ConfigError(
            f"`method` {method!r} must know the residual stream of {site.address}, but family {family!r} does not "
            f"name it. Add `stream` to the family's block {site.block!r}."
        )
    return replace(site, path=site.joined or site.path, source=site.stream)


def around_layer(site: Site, sites: SiteMap, role: str = "") -> Site:
    """The whole layer of a sub-layer, whose input and output are the residual stream.

    Args:
        site: The sub-layer's site; its address, with `role`, stays that of the new one.
        sites: The backbone.
        role: Tells it apart from the sub-layer's own site.

    Raises:
        ConfigError: If the site lies in no layer.
    """
    for path in sites.layers:
        if site.path.startswith(f"{path}."):
            return replace(site, path=path, role=role)
    raise ConfigError(f"`layers` must hold the site of the unit, but {site.address} lies in none.")


def in_turn(chosen: Sequence[Site], sites: SiteMap) -> tuple[Site, ...]:
    """The whole layers of some sub-layers; each knows by its role whether it is the first or last of its stack.

    Args:
        chosen: One sub-layer of every layer, in order.
        sites: The backbone.

    Returns:
        Sites whose role is `FIRST`, `LAST`, `ONLY` or, for those between, empty.

    Raises:
        ConfigError: If a layer is left out between two others, or the tokens of all rows are packed into one sequence.
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
            if site.packed:
                raise ConfigError(
                    f"`towers` must have a row of their own for every input here, but {site.address} packs the "
                    f"tokens of all rows into one sequence. Leave out {site.tower!r}."
                )
            ends = place == 0, place == len(within) - 1
            role = {(True, True): ONLY, (True, False): FIRST, (False, True): LAST}.get(ends, "")
            found.append(around_layer(site, sites, role))
    return tuple(found)


def stream_name(arguments: dict[str, Any]) -> str:
    """Name of the argument by which a layer gets the residual stream.

    Args:
        arguments: All arguments of a call, by name.
    """
    return "hidden_states" if "hidden_states" in arguments else next(iter(arguments))


def relative(path: str | None, layer: Site) -> str:
    """The path of a module within a layer.

    Args:
        path: Its path from the root.
        layer: A site made by `around_layer`.

    Raises:
        ConfigError: If the family names no such module.
    """
    if path is None:
        raise ConfigError(
            f"`layers` must be of a family that names the norm before its attention, but that of {layer.address} "
            "does not. Add `stream` to the family's attention."
        )
    return path.removeprefix(f"{layer.path}.")


def by_video(rows: int, frames: int, address: str) -> int:
    """Number of videos among the rows of a tower.

    Args:
        rows: Rows of the tower.
        frames: Frames of every video.
        address: Where, for the message.

    Raises:
        ConfigError: If the rows are no whole number of videos.
    """
    if rows % frames:
        raise ConfigError(
            f"`frames` must divide the rows of {address} ({rows}), but is {frames}. Show every video by as many "
            "frames, and say how many in the method."
        )
    return rows // frames
