"""Every family on a tiny model of its real class: every site acts where its sub-layer ends, and nowhere else."""

import pytest
import torch

from weft.core import attach, detach, load_adapter, plan
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import SUBLAYERS
from weft.core.testing.vision_language import CASES

METHODS = [
    {"method": "bottleneck", "bottleneck_size": 4, "init": "zero"},
    {"method": "bottleneck", "bottleneck_size": 4, "init": "zero", "placement": "parallel"},
    {"method": "lora", "rank": 2},
]


def case(name):
    torch.manual_seed(0)
    model, batch = CASES[name]()
    # torch takes other kernels for weights that need gradients, which may round otherwise.
    return model.eval().requires_grad_(False), batch


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors(item)]
    return []


def outputs(model, batch):
    with torch.no_grad():
        return [value for value in tensors(dict(model(**batch))) if value.is_floating_point()]


@pytest.mark.parametrize("name", sorted(CASES))
def test_all_towers_start_as_the_backbone_and_every_slot_gets_a_gradient(name):
    model, batch = case(name)
    expected = outputs(model, batch)
    towers = list(resolve(model).towers)
    for method in METHODS:
        attach(model, {**method, "towers": towers})
        found = outputs(model, batch)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        loss = sum(value.square().sum() for value in tensors(dict(model(**batch))) if value.requires_grad)
        loss.backward()
        unused = {key for key, _, value in model.weft.slots() if value.grad is None}
        # LLaVA takes the features of the last layer but one.
        assert all(key.split(".")[1:3] == ["vision", "1"] for key in unused), unused
        assert not unused or name == "llava"
        detach(model)
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, batch), expected, strict=True))


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_site_holds_the_whole_sub_layer(name):
    """With its output zeroed, the stream after the sub-layer is the stream before it: here, only sites differ."""
    model, batch = case(name)
    sites = resolve(model)
    chosen = [site for site in sites.sites if site.block in SUBLAYERS and not site.role]
    assert {site.tower for site in chosen} == set(sites.towers)
    widths = {(site.tower, site.width) for site in chosen}
    assert len(widths) == len(sites.towers)
    seen = {}
    for site in chosen:
        model.get_submodule(site.path).register_forward_hook(
            lambda module, args, out, site=site: seen.update(
                {site.address: out[0] if isinstance(out, tuple) else out}
            )
        )
    outputs(model, batch)
    for site in chosen:
        assert seen[site.address].shape[-1] == site.width, site.address
        assert seen[site.address].dim() == 2 or not site.packed


@pytest.mark.parametrize("name", ["blip_vqa", "qwen2_5_vl"])
def test_fused_maps_are_updated_in_their_rows_alone(name):
    model, _ = case(name)
    attach(model, {"method": "lora", "rank": 2, "linears": ["value"], "towers": ["vision"], "layers": [0]})
    site = resolve(detach(model))["vision.0.attention.value"]
    attach(model, {"method": "lora", "rank": 2, "linears": ["value"], "towers": ["vision"], "layers": [0]})
    module = model.get_submodule(site.path)
    x = torch.randn(3, site.in_width)
    before = module(x)
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(0.3)
    change = (module(x) - before).abs().amax(dim=0)
    first, last = site.rows
    assert not change[:first].any()
    assert change[first:last].all()


def test_towers_of_a_vision_language_model_are_chosen_by_word():
    model, _ = case("llava")
    text = plan(model, METHODS[0])
    assert {site.tower for site in text.sites} == {"text"}
    both = plan(model, {**METHODS[0], "towers": ["text", "vision"], "train_full": ["projector"]})
    assert {site.tower for site in both.sites} == {"text", "vision"}
    assert both.components["projector"] == sum(
        value.numel() for value in model.model.multi_modal_projector.parameters()
    )


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_packed_tokens_follow_their_images(name, tmp_path):
    model, batch = case(name)
    method = {
        "method": "bottleneck",
        "init": "bert",
        "bottleneck_size": 4,
        "sharing": "multiple",
        "towers": ["text", "vision"],
    }
    attach(model, method, ["a", "b"])
    model.save_pretrained(tmp_path)
    with model.route(tasks=["a", "b"]):
        mixed = outputs(model, batch)[0]
    with model.route(task="a"):
        first = outputs(model, batch)[0]
    with model.route(task="b"):
        second = outputs(model, batch)[0]
    torch.testing.assert_close(mixed[0], first[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mixed[1], second[1], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(first[0], second[0])
    other, _ = case(name)
    load_adapter(other, tmp_path)
    with other.route(task="b"):
        assert torch.equal(outputs(other, batch)[0], second)
