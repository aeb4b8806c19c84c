"""What the sites of a family claim about the layers, held against one pass of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.backbone.sites import SUBLAYERS, Site, SiteMap

Seen = dict[str, tuple[Tensor, Tensor]]


def faults(model: nn.Module, batch: dict[str, Any], sites: SiteMap) -> list[str]:
    """Wrong wirings: fields of sites that say something else of the residual stream than a pass shows.

    Within a layer, each sub-layer reads the stream or a norm of it, and adds its output to it. Its wiring must name
    modules that read or give just these. Layers whose sub-layers see a part of the rows are left out.

    Args:
        model: A model in evaluation mode.
        batch: What its `forward` takes.
        sites: Its sites.

    Returns:
        One line for each wrong field, with the site's address.
    """
    seen = pass_of(model, batch)
    wrong: list[str] = []
    for layer in sites.layers:
        within = [
            site
            for site in sites.sites
            if site.path.startswith(f"{layer}.") and site.block in SUBLAYERS and not site.role
        ]
        run = within if any(site.path in seen for site in within) else []
        if layer not in seen or not run:
            continue
        width = seen[layer][0].shape[-1]
        narrow = [site for site in run if _of(seen, site.path, 1).shape[-1] != width]
        wrong.extend(
            f"{site.address}: `path` {site.path} does not return the width of the stream" for site in narrow
        )
        if not narrow and _of_one_shape(seen, layer, run):
            wrong.extend(_faults_of(seen, layer, run))
    return wrong


def pass_of(model: nn.Module, batch: dict[str, Any]) -> Seen:
    """What each module read and returned last, of those that read and return tensors, by path.

    Args:
        model: A model in evaluation mode.
        batch: What its `forward` takes.
    """
    seen: Seen = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            read = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            read = kwargs.get("hidden_states", read) if not args else read
            first = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(read, Tensor) and isinstance(first, Tensor):
                seen[path] = read, first

        return hook

    hooks = [
        module.register_forward_hook(note(path), with_kwargs=True)
        for path, module in model.named_modules()
        if path
    ]
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return seen


def _of_one_shape(seen: Seen, layer: str, sites: Sequence[Site]) -> bool:
    return all(seen[site.path][1].numel() == seen[layer][0].numel() for site in sites)


def _faults_of(seen: Seen, layer: str, sites: Sequence[Site]) -> list[str]:
    """The faults of one layer, by the better of two readings: norms before the sub-layers, or of the sums."""
    return min(([*_faults_if(seen, layer, sites, of_sums)] for of_sums in (False, True)), key=len)


def _faults_if(seen: Seen, layer: str, sites: Sequence[Site], of_sums: bool) -> Iterator[str]:
    norms = [
        path for path in seen if path.startswith(f"{layer}.") and "norm" in path.rpartition(".")[2].lower()
    ]
    stream = seen[layer][0]
    for site in sites:
        normed = [_of(seen, norm, 1) for norm in norms if _same(_of(seen, norm, 0), stream)]
        total = stream + _of(seen, site.path, 1).view_as(stream)
        behind = [_of(seen, norm, 1) for norm in norms if _same(_of(seen, norm, 0), total)]
        after = behind[0].view_as(stream) if of_sums and behind else total
        source, residual = site.wiring.source, site.wiring.residual
        if source in norms or (
            source and not any(_same(_of(seen, source, 0), each) for each in (stream, *normed))
        ):
            yield f"{site.address}: `source` {source} is no sub-layer that reads the stream or a norm of it"
        if residual.before and not _same(_of(seen, residual.before, 0), stream):
            yield f"{site.address}: `before` {residual.before} does not read the residual stream"
        if residual.behind and not _same(_of(seen, residual.behind, 1), after):
            yield f"{site.address}: `behind` {residual.behind} does not return the stream behind the sub-layer"
        if residual.norm and not _same(_of(seen, residual.norm, 0), total):
            yield f"{site.address}: `norm` {residual.norm} does not read the stream with the output in it"
        stream = after
    if not _same(seen[layer][1], stream):
        yield f"{layer}: what the sites give does not add up to what the layer returns"


def _of(seen: Seen, path: str, side: int) -> Tensor:
    """What a module read (0) or returned (1); nothing if it was not called."""
    return seen[path][side] if path in seen else torch.empty(0)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.numel() == other.numel() and torch.allclose(
        one.reshape(-1), other.reshape(-1), rtol=1e-4, atol=1e-5
    )
