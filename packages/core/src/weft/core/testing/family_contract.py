# ruff: noqa: D102  (the names of tests are sentences)
"""What every family must keep: its sites are wired as they say, and any one wrong wiring is found.

A third party inherits `FamilyContract` in its own test file and sets `models`; pytest collects the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from typing import Any, ClassVar

import torch

from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import Site, SiteMap
from weft.core.testing.layer_passes import READ, RETURNED, Seen, WatchedLayers
from weft.core.testing.place_faults import place_faults, place_mutants
from weft.core.testing.wiring_faults import best_streams, faults, layer_faults, same, sublayers_of


class FamilyContract:
    """The contract. Set `models` in a subclass.

    A family whose `models` pass tells the residual stream, the norms, the roles of linear maps and the places in front
    of stacks as they are: each mutant, in which one field of a site names another module, is found by the same passes.

    Class attributes:
        models: Name to what makes a tiny model of the family and a batch that its `forward` takes.
        mutated: Names of those of which mutants are made; by default all.
        beyond: Names of those whose layers add more to the stream than their sub-layers, or not to all tokens.
    """

    models: ClassVar[Mapping[str, Callable[[], tuple[Any, dict[str, Any]]]]] = {}
    mutated: ClassVar[tuple[str, ...] | None] = None
    beyond: ClassVar[frozenset[str]] = frozenset()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Every model, or those of which there are mutants."""
        of_mutants = self.mutated if self.mutated is not None else tuple(self.models)
        for fixture, names in (("name", tuple(self.models)), ("mutated_name", of_mutants)):
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, names)

    def watched(self, name: str) -> tuple[WatchedLayers, SiteMap]:
        """A model's layers, watched in a pass, and its sites."""
        torch.manual_seed(0)
        model, batch = self.models[name]()
        sites = resolve(model)
        return WatchedLayers(model.eval(), batch, sites), sites

    def test_the_sites_are_wired_as_they_say(self, name: str) -> None:
        watched, sites = self.watched(name)
        found = [*faults(watched, sites), *place_faults(watched, sites)]
        assert not [fault for fault in found if name not in self.beyond or "add up" not in fault]

    def test_a_wrong_wiring_is_found(self, mutated_name: str) -> None:
        watched, sites = self.watched(mutated_name)
        missed, told = [], dict[str, set[str]]()
        for layer, wrong in mutants(watched, sites):
            if layer not in told:
                told[layer] = set(layer_faults(watched, sites, layer))
            changed = {site.address: site for site in wrong}
            mutant = replace(sites, sites=tuple(changed.get(site.address, site) for site in sites.sites))
            if told[layer].issuperset(layer_faults(watched, mutant, layer)):
                missed.append(wrong)
        for place in place_mutants(watched, sites):
            if not place_faults(watched, replace(sites, sites=(place,))):
                missed.append([place])
        assert told
        assert not missed


def mutants(watched: WatchedLayers, sites: SiteMap) -> Iterator[tuple[str, list[Site]]]:
    """Wrong sites of the first layer of every kind: a layer's path, and one or two sites to put in place of theirs.

    Modules that read, or return, the very same values as the right one are left out: their claim is as right.
    """
    kinds = set()
    for layer in sites.layers:
        within = sublayers_of(sites, layer)
        seen = watched.seen.get(layer, {})
        kind = tuple(
            (site.tower, site.stack, site.block, str(site.wiring).replace(layer, "")) for site in within
        )
        if kind in kinds or not within or layer not in seen:
            continue
        kinds.add(kind)
        given = [seen[site.path][RETURNED].numel() for site in within if site.path in seen]
        if {seen[layer][READ].numel()} == set(given):
            for wrong in _of_sublayers(seen, layer, within):
                yield layer, [wrong]
        for pair in _of_roles([site for site in sites.sites if site.path.startswith(f"{layer}.")]):
            yield layer, pair


def _of_sublayers(seen: Seen, layer: str, within: list[Site]) -> Iterator[Site]:
    others = _different(seen, layer)
    for site, stream in zip(within, best_streams(seen, layer, within), strict=True):
        source, residual = site.wiring.source, site.wiring.residual
        given, read = seen[site.path][RETURNED], seen[str(source)][READ]
        for other in others:
            reads, returns = seen[other]
            if not same(returns, given):
                yield site.rewired(path=other)
            if not same(reads, read):
                yield site.rewired(source=other)
            if not same(reads, stream.enters):
                yield site.rewired(residual=replace(residual, before=other))
            if not same(returns, stream.leaves):
                yield site.rewired(residual=replace(residual, behind=other))
            if not (same(reads, stream.total) and same(returns, stream.leaves)):
                yield site.rewired(residual=replace(residual, norm=other))


def _of_roles(within: list[Site]) -> Iterator[list[Site]]:
    """Each map with the module of another role of its block, or of its own role in another block; or both changed."""
    for one, other in permutations([site for site in within if site.role], 2):
        if one.block == other.block or one.role == other.role:
            yield [_with_module(one, other)]
        if one.block == other.block and one.role < other.role:
            yield [_with_module(one, other), _with_module(other, one)]


def _with_module(site: Site, other: Site) -> Site:
    moved = replace(site, rows=other.rows, in_width=other.in_width, out_width=other.out_width)
    return moved.rewired(path=other.path)


def _different(seen: Seen, layer: str) -> list[str]:
    """The modules of a layer, one of those that read and return the same."""
    found: list[str] = []
    for path in seen:
        if path != layer and not any(
            all(same(seen[path][side], seen[other][side]) for side in (READ, RETURNED)) for other in found
        ):
            found.append(path)
    return found
