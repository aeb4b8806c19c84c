"""DoRA against the formula with whole matrices, and against PEFT."""

from typing import ClassVar

import pytest
import torch

from weft.core import attach
from weft.core.errors import AttachError, ConfigError
from weft.core.files.interop.peft import export_peft
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import UnitContract, adapted, move_slots, outputs
from weft.core.testing.vision_language import CASES
from weft.core.unit.method import parse_method

DORA = {"method": "lora", "rank": 2, "alpha": 6, "magnitude": True, "linears": ["query", "down"]}


class TestDoRA(UnitContract):
    configs: ClassVar = list(parse_method({**DORA, "name": "dora"}))
    backbones: ClassVar = ["bart"]


def dense(weight, down, up, magnitude, scale):
    """The adapted weight by the paper's equation, with nothing left out."""
    moved = weight + scale * (down @ up).T
    return magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True)


def test_a_map_computes_the_papers_formula():
    model, _ = adapted(DORA, "bart", None, noise=0.2)
    module = model.model.encoder.layers[0].fc2
    key = "lora.text.encoder.0.ffn.down"
    down, up, magnitude = (
        model.weft.banks_by_key[f"{key}.{name}"].slot_of("default")
        for name in ("down.weight", "up.weight", "magnitude")
    )
    x = torch.randn(3, 5, module.in_features)
    weight = dense(module.weight, down, up, magnitude, 3.0)
    expected = torch.nn.functional.linear(x, weight, module.bias)
    torch.testing.assert_close(module(x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("tasks", [None, ["vqa", "gqa"]], ids=["one task", "two tasks"])
def test_it_starts_as_the_backbone(tasks):
    model, batch = tiny_backbone("t5")
    model.requires_grad_(False)
    expected = outputs(model, batch)
    attach(model, {**DORA, "sharing": "multiple"}, tasks)
    model.set_task(model.weft.tasks[0])
    assert torch.equal(outputs(model, batch), expected)
    if tasks:
        model.add_task("nlvr")
        model.set_task("nlvr")
        assert torch.equal(outputs(model, batch), expected)


def test_rows_of_a_fused_map_have_magnitudes_of_their_own():
    torch.manual_seed(0)
    model, _ = CASES["blip_caption"]()
    method = {**DORA, "linears": ["value"], "towers": ["vision"], "layers": [0]}
    attach(model.eval(), method)
    module = model.vision_model.encoder.layers[0].self_attn.qkv
    move_slots(model, 0.2)
    key = "lora.vision.0.attention.value"
    slots = [
        model.weft.banks_by_key[f"{key}.{n}"].slot_of("default")
        for n in ("down.weight", "up.weight", "magnitude")
    ]
    weight = module.weight.detach().clone()
    weight[32:] = dense(weight[32:], *slots, 3.0)
    x = torch.randn(3, 16)
    expected = torch.nn.functional.linear(x, weight, module.bias)
    torch.testing.assert_close(module(x), expected, atol=1e-6, rtol=1e-6)


def test_no_temporary_has_the_size_of_the_weight():
    from torch.utils._python_dispatch import TorchDispatchMode

    model, _ = adapted(DORA, "bart", None)
    module = model.model.encoder.layers[0].fc2
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.data_ptr() != module.weight.data_ptr():
                sizes.append(result.numel())
            return result

    x = torch.randn(2, module.in_features)
    with Watch():
        module(x)
    assert sizes
    assert max(sizes) < module.in_features * min(module.in_features, module.out_features)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backbone", ["bart", "clip"])
def test_peft_computes_the_same_outputs_and_gradients(tmp_path, backbone):
    peft = pytest.importorskip("peft")
    model, batch = adapted({**DORA, "sharing": "multiple"}, backbone, ["vqa", "gqa"])
    export_peft(model, tmp_path, task="gqa")
    other, _ = tiny_backbone(backbone)
    theirs = peft.PeftModel.from_pretrained(other, str(tmp_path), is_trainable=True).eval()
    with model.route(task="gqa"):
        ours = outputs(model, batch)
    torch.testing.assert_close(outputs(theirs, batch), ours, atol=1e-6, rtol=1e-6)
    ours.square().sum().backward()
    outputs(theirs, batch).square().sum().backward()
    found = {
        key: value.grad
        for key, slot, value in model.weft.slots()
        if slot == "gqa" and key.endswith("magnitude")
    }
    expected = [p.grad for name, p in theirs.named_parameters() if "magnitude" in name]
    assert len(found) == len(expected) > 0
    total = sum(value.norm() for value in found.values())
    torch.testing.assert_close(total, sum(value.norm() for value in expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "sharing",
    [{"magnitude": ["task", "layer"]}, {"default": ["task", "layer"]}, {"default": [], "layer_group": 2}],
)
def test_magnitudes_of_different_maps_are_not_shared(sharing):
    model, _ = tiny_backbone("bart")
    with pytest.raises(ConfigError, match="`sharing` may share `magnitude` across `task` alone"):
        attach(model, {**DORA, "sharing": sharing})


def test_a_quantised_map_is_refused_and_nothing_is_left_behind():
    model, batch = tiny_backbone("bart")
    module = model.model.encoder.layers[0].fc2
    weight = module.weight
    del module._parameters["weight"]
    module.weight = (weight * 100).to(torch.int8)
    with pytest.raises(AttachError, match="`magnitude` needs a weight of floating-point numbers"):
        attach(model, DORA)
    del module.weight
    module.weight = weight
    assert not hasattr(model, "weft")
    assert all(value.requires_grad for value in model.parameters())
    attach(model, DORA)
    outputs(model, batch)
