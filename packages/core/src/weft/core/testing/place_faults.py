"""What the places in front of whole stacks claim, held against a pass of a model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch

from weft.core.backbone.sites import Site, SiteMap
from weft.core.testing.layer_passes import WatchedLayers
from weft.core.testing.wiring_faults import same


def place_faults(watched: WatchedLayers, sites: SiteMap) -> list[str]:
    """Wrong wirings of places in front of whole stacks: `path`, `whole`, `positions` and `reader`.

    One line for each wrong field, with the site's address.
    """
    return [
        f"{site.address}: {fault}"
        for site in sites.sites
        if site.wiring.whole is not None and not _stack_of(sites, site).isdisjoint(watched.seen)
        for fault in _faults(watched, sites, site)
    ]


def place_mutants(watched: WatchedLayers, sites: SiteMap) -> Iterator[Site]:
    """Wrong sites in place of those in front of whole stacks, each with one field that names something else."""
    for site in (
        site for site in sites.sites if site.wiring.whole is not None and site.path in watched.around
    ):
        yield site.rewired(whole="tokens" if site.wiring.whole == "embeddings" else "embeddings")
        for field in ("path", "positions", "reader"):
            right = getattr(site.wiring, field)
            for other in watched.around if right is not None else ():
                if other != right and _tells(watched, field, other, right, site):
                    yield site.rewired(**{field: other})


def _tells(watched: WatchedLayers, field: str, other: str, right: str, site: Site) -> bool:
    """Whether another module is another one to the passes too."""
    if field == "reader":
        return not _reads(watched, other, watched.around[site.path][1])
    return field == "path" or not same(watched.around[other][1], watched.around[right][1])


def _faults(watched: WatchedLayers, sites: SiteMap, site: Site) -> Iterator[str]:
    wiring, given = site.wiring, watched.around.get(site.path)
    inside = {path for path in sites.layers if path.startswith(f"{site.path}.")}
    if given is None or inside != _stack_of(sites, site):
        yield f"`path` {site.path} is not the stack of the place"
        return
    if given[1].shape[-1] != site.width:
        yield f"`path` {site.path} does not return the width of the place"
    if wiring.whole == "embeddings" and given[0][0].shape[2:] != (site.width,):
        yield f"`path` {site.path} does not read embeddings of the width of the place"
    takes = inspect.signature(watched.model.get_submodule(site.path).forward).parameters
    if ("input_ids" in takes) != (wiring.whole == "tokens"):
        yield f"`whole` says {wiring.whole}, but {site.path} takes {', '.join(takes)}"
    if wiring.positions is not None and not _is_positions(watched, wiring.positions, site):
        yield f"`positions` {wiring.positions} does not give each place of the sequence what it gives in every row"
    if wiring.reader is not None and not _reads(watched, wiring.reader, given[1]):
        yield f"`reader` {wiring.reader} does not read what the stack returns"


def _stack_of(sites: SiteMap, site: Site) -> set[str]:
    front = ".".join(word for word in (site.tower, site.stack) if word)
    return {path for path, own in sites.layers.items() if own.rpartition(".")[0] == front}


def _is_positions(watched: WatchedLayers, path: str, site: Site) -> bool:
    if path not in watched.around or not path.startswith(f"{site.path}."):
        return False
    added = watched.around[path][1]
    if added.dim() < 2 or added.shape[-1] != site.width:
        return False
    rows = added.reshape(-1, *added.shape[-2:])
    return same(rows, rows[:1].expand_as(rows)) and not same(rows, rows[:, :1].expand_as(rows))


def _reads(watched: WatchedLayers, path: str, value: torch.Tensor) -> bool:
    return path in watched.around and any(same(read, value) for read in watched.around[path][0])
