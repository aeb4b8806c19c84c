"""What the sites of a family claim about the layers, held against passes of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weft.core.backbone.sites import SUBLAYERS, Site, SiteMap
from weft.core.backbone.wiring import Residual
from weft.core.testing.layer_passes import READ, RETURNED, Seen, WatchedLayers


@dataclass(frozen=True)
class Stream:
    """The residual stream around one sub-layer, as its site's wiring has it.

    Args:
        enters: The stream before it.
        total: That with the sub-layer's output added.
        leaves: What is passed on: the sum, or the norm of it.
    """

    enters: Tensor
    total: Tensor
    leaves: Tensor


def faults(watched: WatchedLayers, sites: SiteMap) -> list[str]:
    """Wrong wirings: fields of sites that say something else than the passes show, with the site's address.

    Within a layer, each sub-layer reads the stream or a norm of it and adds its output to it; its wiring must name
    modules that read or return just these. Changes of what a linear map returns show its role. Layers that are not run
    are left out.
    """
    return [fault for layer in sites.layers for fault in layer_faults(watched, sites, layer)]


def layer_faults(watched: WatchedLayers, sites: SiteMap, layer: str) -> list[str]:
    """The faults of one layer; see `faults`."""
    seen = watched.seen.get(layer, {})
    within = sublayers_of(sites, layer)
    maps = [site for site in sites.sites if site.path.startswith(f"{layer}.") and site.role]
    if layer not in seen or not any(site.path in seen for site in within):
        return []
    width = seen[layer][READ].shape[-1]
    has_stream = not _is_alone(seen, layer, within)
    narrow = [
        site
        for site in within
        if _of(seen, site.path, RETURNED).shape[-1] != site.width or (has_stream and site.width != width)
    ]
    if narrow:
        return [
            f"{site.address}: `path` {site.path} does not return the width of the stream" for site in narrow
        ]
    found = [fault for site in within for fault in _role_faults(watched, layer, site, maps)]
    if not has_stream:
        return found
    if any(seen[site.path][RETURNED].numel() != seen[layer][READ].numel() for site in within):
        return [
            *found,
            f"{layer}: what the sites give does not add up, as one gives another number of tokens",
        ]
    return [*found, *_stream_faults(seen, layer, within)]


def _is_alone(seen: Seen, layer: str, within: Sequence[Site]) -> bool:
    """Whether a layer returns what its one sub-layer gives, which claims no stream, as where a map changes its size."""
    silent = len(within) == 1 and within[0].wiring.residual == Residual()
    return silent and same(_of(seen, within[0].path, RETURNED), seen[layer][RETURNED])


def sublayers_of(sites: SiteMap, layer: str) -> list[Site]:
    """The sites of a layer's sub-layers, in order."""
    return [
        site
        for site in sites.sites
        if site.path.startswith(f"{layer}.") and site.block in SUBLAYERS and not site.role
    ]


def streams(seen: Seen, layer: str, sites: Sequence[Site], *, of_sums: bool) -> list[Stream]:
    """The stream around each sub-layer of a layer, in order.

    With `of_sums`, the norm of each sum is passed on, also where no wiring names it.
    """
    found, enters = [], seen[layer][READ]
    for site in sites:
        norm = site.wiring.residual.norm
        total = enters + _of(seen, site.path, RETURNED).reshape(enters.shape)
        behind = [norm] if norm else _reading(seen, layer, total) if of_sums else []
        leaves = _of(seen, behind[0], RETURNED) if behind else total
        leaves = leaves.reshape(enters.shape) if leaves.numel() == enters.numel() else total
        found.append(Stream(enters, total, leaves))
        enters = leaves
    return found


def best_streams(seen: Seen, layer: str, sites: Sequence[Site]) -> list[Stream]:
    """The stream by the reading that ends in what the layer returns: norms of the sums, or of what sub-layers read."""
    readings = [streams(seen, layer, sites, of_sums=of_sums) for of_sums in (False, True)]
    fitting = [each for each in readings if same(each[-1].leaves, seen[layer][RETURNED])]
    return (fitting or readings)[0]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, however they are laid out."""
    if one.numel() != other.numel() or one.numel() == 0:
        return False
    scale = max(float(one.abs().max()), float(other.abs().max()))
    return float((one.reshape(-1) - other.reshape(-1)).abs().max()) <= 1e-5 * scale


def _stream_faults(seen: Seen, layer: str, sites: Sequence[Site]) -> Iterator[str]:
    around = best_streams(seen, layer, sites)
    for site, stream in zip(sites, around, strict=True):
        source, residual = site.wiring.source, site.wiring.residual
        norms = _reading(seen, layer, stream.enters)
        inputs = [stream.enters, *(_of(seen, norm, RETURNED) for norm in norms)]
        if source in norms or not any(same(_of(seen, source, READ), each) for each in inputs):
            yield f"{site.address}: `source` {source} is no sub-layer that reads the stream or a norm of it"
        if residual.before and not same(_of(seen, residual.before, READ), stream.enters):
            yield f"{site.address}: `before` {residual.before} does not read the residual stream"
        if residual.behind and not same(_of(seen, residual.behind, RETURNED), stream.leaves):
            yield f"{site.address}: `behind` {residual.behind} does not return the stream behind the sub-layer"
        norm = [_of(seen, residual.norm, side) for side in (READ, RETURNED)]
        if residual.norm and not (same(norm[0], stream.total) and same(norm[1], stream.leaves)):
            yield f"{site.address}: `norm` {residual.norm} does not read the stream with the output in it"
    if not same(seen[layer][RETURNED], around[-1].leaves):
        yield f"{layer}: what the sites give does not add up to what the layer returns"


def _reading(seen: Seen, layer: str, value: Tensor) -> list[str]:
    """The norms of a layer that read a value."""
    return [
        path
        for path, (read, _) in seen.items()
        if path.startswith(f"{layer}.") and "norm" in path.rpartition(".")[2].lower() and same(read, value)
    ]


def _role_faults(watched: WatchedLayers, layer: str, sublayer: Site, maps: Sequence[Site]) -> Iterator[str]:
    roles = {site.role: site for site in maps if site.block == sublayer.block}
    seen = watched.seen[layer]
    for role, site in roles.items():
        read, returned = (_of(seen, site.path, side) for side in (READ, RETURNED))
        if site.path not in seen or (read.shape[-1], returned.shape[-1]) != (site.in_width, site.out_width):
            yield f"{site.address}: {site.path} is not called with the widths of the map"
        elif not _fits(watched, layer, sublayer, roles, role):
            yield f"{site.address}: {site.path} is not what {role!r} is to its sub-layer"


def _fits(watched: WatchedLayers, layer: str, sublayer: Site, roles: Mapping[str, Site], role: str) -> bool:
    """Whether changes of what a map returns do what those of its role do."""
    seen, site = watched.seen[layer], roles[role]
    last = roles.get("output", roles.get("down"))
    source = _of(seen, sublayer.wiring.source, READ)
    if site is last:
        given = _of(_changed(watched, layer, site, "negate"), sublayer.path, RETURNED)
        return not same(given, _of(seen, sublayer.path, RETURNED))
    beside = roles.get("value") if (role, sublayer.block) == ("key", "cross_attention") else None
    expected = source if beside is None else _of(seen, beside.path, READ)
    if (role, sublayer.block) != ("value", "cross_attention") and not same(seen[site.path][READ], expected):
        return False
    if last is None:
        return True
    mixed = _of(seen, last.path, READ)
    negated = _of(_changed(watched, layer, site, "negate"), last.path, READ)
    is_odd = same(negated, -mixed)
    if role in ("up", "gate"):
        return not same(negated, mixed) and ("gate" not in roles or is_odd == (role == "up"))
    elsewhere = [
        _reaches(_of(_changed(watched, layer, site, place), last.path, READ) - mixed, place)
        for place in (0, -1)
    ]
    moves = not same(negated, mixed)
    return moves and is_odd == (role == "value") and (not any(elsewhere) if role == "query" else elsewhere[0])


def _reaches(difference: Tensor, place: int) -> bool:
    """Whether a change at the first (0) or last (-1) place of the sequence is felt at another one."""
    felt = difference.abs().reshape(-1, *difference.shape[-2:]).amax(dim=(0, -1))
    felt = felt > 1e-4 * felt.max()
    return bool(felt[1:].any() if place == 0 else felt[:-1].any())


def _changed(watched: WatchedLayers, layer: str, site: Site, what: str | int) -> Seen:
    """A pass of the layer where a map's own features are negated, or moved at one place of the sequence."""
    first, end = site.rows or (0, site.out_width)

    def change(output: Tensor) -> Tensor:
        output = output.clone()
        if isinstance(what, str):
            output[..., first:end].neg_()
        else:
            output[..., what, first:end] += torch.linspace(-1, 1, end - first)
        return output

    return watched.again(layer, site.path, change, first, end, what)


def _of(seen: Seen, path: str | None, side: int) -> Tensor:
    """What a module read or returned; nothing if it was not called."""
    return seen[path][side] if path in seen else torch.empty(0)
