"""What families claim of their sites is what a pass shows; any one wrong claim is found."""

from dataclasses import replace

import pytest
import torch

from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import SUBLAYERS
from weft.core.testing.backbones import BACKBONES
from weft.core.testing.family_contract import faults, pass_of
from weft.core.testing.sibling_types import SIBLINGS
from weft.core.testing.vision_language import CASES

MODELS = {**BACKBONES, **CASES, **SIBLINGS}
# Gemma 4 adds features of each token behind both sub-layers, which are no site: layers are more than their sites.
MORE_THAN_SITES = {"gemma4"}
FIELDS = ("path", "source", "before", "behind", "norm")


def case(name):
    torch.manual_seed(0)
    model, batch = MODELS[name]()
    return model.eval(), batch


@pytest.mark.parametrize("name", MODELS)
def test_the_sites_are_wired_as_they_say(name):
    model, batch = case(name)
    found = faults(model, batch, resolve(model))
    if name in MORE_THAN_SITES:
        found = [fault for fault in found if "add up" not in fault]
    assert not found


def named(site):
    """Field to the module that it names."""
    residual = site.wiring.residual
    fields = {"before": residual.before, "behind": residual.behind, "norm": residual.norm}
    return {"path": site.path, "source": site.wiring.source, **fields}


def rewired(site, field, path):
    if field in ("path", "source"):
        return site.rewired(**{field: path})
    return site.rewired(residual=replace(site.wiring.residual, **{field: path}))


def mutants(model, sites):
    """Site maps in which one field of one sub-layer names another module of its layer."""
    for site in sites.sites:
        if site.layer != 0 or site.role or site.block not in SUBLAYERS:
            continue
        (layer,) = (path for path in sites.layers if site.path.startswith(f"{path}."))
        children = model.get_submodule(layer).named_children()
        others = [f"{layer}.{path}" for path, child in children if any(True for _ in child.parameters())]
        for field in FIELDS:
            for other in others:
                if named(site)[field] not in (None, other):
                    mutant = rewired(site, field, other)
                    yield (
                        mutant,
                        replace(sites, sites=tuple(mutant if each is site else each for each in sites.sites)),
                    )


def same(seen, site, mutant):
    """Whether the other module reads, or returns, the very same values: the claim is as right."""
    sides = {"path": 1, "source": 0, "before": 0, "behind": 1, "norm": 0}
    pairs = [(named(site)[field], named(mutant)[field], side) for field, side in sides.items()]
    ((right, other, side),) = (pair for pair in pairs if pair[0] != pair[1])
    if other not in seen:
        return False
    one, two = seen[right][side], seen[other][side]
    return one.numel() == two.numel() and torch.allclose(one.reshape(-1), two.reshape(-1))


@pytest.mark.parametrize("name", ["bert", "siglip", "llama", "gemma3", "t5", "bart"])
def test_a_wrong_wiring_is_found(name):
    model, batch = case(name)
    sites = resolve(model)
    seen = pass_of(model, batch)
    missed = []
    for mutant, changed in mutants(model, sites):
        if not same(seen, sites[mutant.address], mutant) and not faults(model, batch, changed):
            missed.append(mutant)
    assert not missed
