"""Sites that a unit makes of those a family names: on the residual stream, and around a whole layer."""

from __future__ import annotations

from dataclasses import replace

from weft.core.errors import ConfigError
from weft.core.sites import Site, SiteMap


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
