"""Merging: the backbone's weights do what the units did, and come back bit for bit."""

import pytest
import torch

from weft.core import attach, merge, merged
from weft.core.errors import AttachError, ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, move_slots, outputs
from weft.core.testing.vision_language import CASES

TASKS = ["vqa", "gqa"]
LORA = {"method": "lora", "rank": 2, "alpha": 6, "linears": ["query", "value", "down"], "sharing": "multiple"}
METHODS = [
    LORA,
    {**LORA, "magnitude": True},
    {"method": "ia3", "sharing": "multiple"},
    [LORA, {"method": "ia3", "linears": ["query", "down"], "sharing": "single"}],
    [{"method": "ia3", "linears": ["query", "down"], "sharing": "single"}, LORA],
    [LORA, {**LORA, "name": "more", "rank": 3}],
    [LORA, {**LORA, "name": "more", "magnitude": True}],
    [{**LORA, "magnitude": True}, {**LORA, "name": "more", "magnitude": True}],
    [{"method": "ia3", "linears": ["value", "down"], "sharing": "single"}, {**LORA, "magnitude": True}],
]
IDS = [
    "lora",
    "dora",
    "ia3",
    "lora and ia3",
    "ia3 and lora",
    "two loras",
    "lora and dora",
    "two doras",
    "ia3 and dora",
]


@pytest.mark.parametrize("method", METHODS, ids=IDS)
@pytest.mark.parametrize("backbone", ["bart", "t5", "clip"])
def test_a_merged_model_is_plain_and_computes_the_same(backbone, method):
    model, batch = adapted(method, backbone, TASKS)
    with model.route(task="gqa"):
        expected = outputs(model, batch)
    report = merge(model, task="gqa")
    assert not hasattr(model, "weft")
    assert report.maps > 0
    assert report.error < 1e-5
    torch.testing.assert_close(outputs(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_outside_the_context_everything_is_bit_equal():
    model, batch = adapted(LORA, "bart", TASKS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with model.route(task="vqa"):
        expected = outputs(model, batch)
    with merged(model, task="vqa") as report:
        torch.testing.assert_close(outputs(model, batch), expected, atol=1e-5, rtol=1e-5)
        assert not torch.equal(
            model.model.encoder.layers[0].fc2.weight, before["model.encoder.layers.0.fc2.weight"]
        )
    assert report.error > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with model.route(task="vqa"):
        assert torch.equal(outputs(model, batch), expected)


def test_the_error_of_a_coarse_dtype_is_measured():
    model, _ = tiny_backbone("bart")
    attach(model.bfloat16(), LORA, TASKS)
    move_slots(model, 0.05)
    with merged(model, task="vqa") as report:
        assert 1e-4 < report.error < 1e-1


def test_dropout_is_no_error_of_the_merged_weights():
    model, _ = adapted({**LORA, "dropout": 0.5}, "bart", TASKS, noise=0.3)
    model.train()
    state = torch.get_rng_state()
    with merged(model, task="gqa") as report:
        assert report.error < 1e-5
        assert model.training
        assert model.weft.training
    assert merge(model, task="gqa").error < 1e-5
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_rows_of_a_fused_map_are_merged_alone(kind):
    torch.manual_seed(0)
    model, batch = CASES["blip_vqa"]()
    attach(model.eval(), {"method": kind, "linears": ["value"], "towers": ["vision"]})
    move_slots(model, 0.1)
    fused = model.vision_model.encoder.layers[0].self_attn.qkv.weight
    before, expected = fused.clone(), model(**batch).loss
    merge(model)
    assert torch.equal(fused[:32], before[:32])
    assert not torch.equal(fused[32:], before[32:])
    torch.testing.assert_close(model(**batch).loss, expected, atol=1e-5, rtol=1e-5)


def test_units_that_are_not_linear_are_refused():
    model, _ = adapted([LORA, {"method": "bottleneck", "init": "bert", "bottleneck_size": 4}], "bart", TASKS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        AttachError, match=r"must have linear units alone to be merged, but that at .* is a Bottleneck"
    ):
        merge(model, task="vqa")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_wrong_tasks_are_refused():
    model, _ = adapted(LORA, "bart", TASKS)
    with pytest.raises(ConfigError, match=r"`task` must be .* Did you mean 'vqa'"):
        merge(model, task="vqaa")
    with pytest.raises(ConfigError, match="`task` must be given, because a weight can hold one task"):
        merge(model)
    plain, _ = tiny_backbone("bart")
    with pytest.raises(AttachError, match=r"must have units, but it has none\. There is nothing to merge"):
        merge(plain)


def test_tied_and_quantised_weights_are_refused():
    model, _ = adapted(LORA, "bart", TASKS)
    layer = model.model.encoder.layers[0].self_attn
    layer.k_proj.weight = layer.q_proj.weight
    with pytest.raises(AttachError, match="must have weights of their own where units are merged"):
        merge(model, task="vqa")
    del layer.q_proj._parameters["weight"]
    layer.q_proj.weight = torch.zeros(16, 16, dtype=torch.int8)
    with pytest.raises(
        AttachError, match="must have weights of floating-point numbers where units are merged"
    ):
        merge(model, task="vqa")
