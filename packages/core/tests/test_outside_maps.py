"""Linear maps outside the layers: connectors, heads and the map onto the vocabulary are sites of LoRA by name."""

import pytest
import torch
from torch import nn

from weft.core import attach, load_adapter, plan
from weft.core.adapted.merging import merge
from weft.core.backbone.resolving import resolve
from weft.core.errors import AddressError, AttachError, ConfigError
from weft.core.testing import BACKBONES, tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs
from weft.core.testing.vision_language import CASES

MODELS = BACKBONES | CASES
TASKS = ["vqa", "gqa"]


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_map_that_is_called_is_a_site(name):
    model, _ = MODELS[name]()
    sites = resolve(model)
    known = {site.path for site in (*sites.sites, *sites.maps) if site.role}
    maps = {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    inside = {
        path
        for path in maps
        if isinstance(model.get_submodule(path.rpartition(".")[0]), nn.MultiheadAttention)
    }
    assert known >= maps - inside
    addresses = [site.address for site in (*sites.sites, *sites.maps)]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize(
    ("name", "words", "addresses"),
    [
        ("llava", ["lm_head"], ["text.logits.lm_head"]),
        (
            "llava",
            ["projector"],
            ["vision.projection.projector.linear_1", "vision.projection.projector.linear_2"],
        ),
        ("llava", ["projector.linear_2"], ["vision.projection.projector.linear_2"]),
        (
            "clip",
            ["projector"],
            ["text.projection.projector.text_projection", "vision.projection.projector.visual_projection"],
        ),
        ("vit", ["head"], ["vision.projection.head"]),
    ],
    ids=["vocabulary", "connector", "one map", "two modules", "head"],
)
def test_maps_are_named_by_their_component(name, words, addresses):
    model, _ = MODELS[name]()
    planned = plan(model, {"method": "lora", "rank": 2, "linears": [], "components": words})
    assert [site.address for site in planned.sites] == addresses


@pytest.mark.parametrize(
    ("name", "components"),
    [
        ("bart", ["lm_head"]),
        ("clip", ["projector"]),
        ("visual_seq2seq", ["visual_embedding", "lm_head"]),
    ],
)
def test_every_row_takes_the_weights_of_its_task(name, components):
    method = {"method": "lora", "rank": 2, "components": components, "sharing": "multiple"}
    model, batch = adapted(method, name, TASKS, noise=0.2)
    names = [TASKS[row % 2] for row in range(4)]
    alone = {}
    with torch.no_grad():
        for task in TASKS:
            with model.route(task=task):
                alone[task] = outputs(model, batch)
        with model.route(tasks=names):
            mixed = outputs(model, batch)
    expected = torch.stack([alone[task][row] for row, task in enumerate(names)])
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone["vqa"], alone["gqa"], atol=1e-3)


def test_they_come_back_from_a_checkpoint(tmp_path):
    method = {"method": "lora", "rank": 2, "magnitude": True, "linears": [], "components": ["projector"]}
    model, batch = adapted(method, "clip", None, noise=0.2)
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("clip")
    before = outputs(other, batch)
    load_adapter(other, tmp_path)
    assert torch.equal(outputs(other, batch), outputs(model, batch))
    assert not torch.allclose(outputs(other, batch), before, atol=1e-4)


def test_they_merge_where_their_weights_are_their_own():
    method = {"method": "lora", "rank": 2, "linears": [], "components": ["projector"]}
    model, batch = adapted(method, "clip", None, noise=0.2)
    expected = outputs(model, batch)
    assert merge(model).maps == 2
    torch.testing.assert_close(outputs(model, batch), expected, atol=1e-5, rtol=1e-5)
    tied, _ = adapted({**method, "components": ["lm_head"]}, "bart", None)
    with pytest.raises(AttachError, match="weights of their own where units are merged"):
        merge(tied)


def test_words_that_mean_no_map_are_told():
    model, _ = tiny_backbone("clip")
    with pytest.raises(
        AddressError, match=r"`components` must be .* but is 'projecter'. Did you mean 'projector'"
    ):
        attach(model, {"method": "lora", "components": ["projecter"]})
    with pytest.raises(AddressError, match=r"`components` must be .* but is 'logit_scale'"):
        attach(model, {"method": "lora", "components": ["logit_scale"]})
    with pytest.raises(
        ConfigError, match="`linears` must name a role where `components` is empty, but is empty"
    ):
        attach(model, {"method": "lora", "linears": []})
