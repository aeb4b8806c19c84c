"""MTL-LoRA: the paper's formula row by row, its count, and where it starts."""

import pytest
import torch

from weft.core import attach, combine_tasks, merged, plan
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import TASKS, adapted, outputs
from weft.core.testing.vision_language import CASES

MTL = {
    "method": "mtl_lora",
    "rank": 2,
    "ups": 3,
    "alpha": 6,
    "temperature": 0.5,
    "linears": ["query", "down"],
}


def slots_of(model, key, task):
    names = ("down.weight", "transform", "up.weight", "mix")
    return [model.weft.banks_by_key[f"{key}.{name}"].slot_of(task) for name in names]


def update(x, down, transform, ups, mix, *, scale, temperature):
    """The paper's formula for one row, `B_i` after `B_i`."""
    exponentials = [(value / temperature).exp() for value in mix]
    hidden = x @ down @ transform
    return scale * sum(e / sum(exponentials) * (hidden @ up) for e, up in zip(exponentials, ups, strict=True))


@pytest.mark.parametrize(
    "sharing", [None, "single", "multiple", "half", {"mix": ["task"]}, {"transform": ["task"]}]
)
def test_each_row_gets_the_papers_formula_with_its_tasks_matrices(sharing):
    method = MTL if sharing is None else {**MTL, "sharing": sharing}
    model, _ = adapted(method, "bart", noise=0.3)
    module = model.model.encoder.layers[0].fc2
    x = torch.randn(3, 5, module.in_features)
    with model.disable_adapter():
        plain = module(x)
    with model.route(tasks=["gqa", None, "vqa"]):
        found = module(x)
    assert torch.equal(found[1], plain[1])
    for row, task in ((0, "gqa"), (2, "vqa")):
        slots = slots_of(model, "mtl_lora.text.encoder.0.ffn.down", task)
        expected = plain[row] + update(x[row], *slots, scale=3.0, temperature=0.5)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


def test_matrices_are_for_all_tasks_and_transforms_for_each_by_default():
    model, _ = tiny_backbone("bart")
    for bank in plan(model, MTL, TASKS).banks.values():
        assert len(bank.slots) == (1 if bank.key.endswith("weight") else len(TASKS))


def test_the_count_is_that_of_the_formula():
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        model = BertModel(BertConfig())
    planned = plan(model, {"method": "mtl_lora", "rank": 8, "ups": 3, "linears": ["query", "up"]}, TASKS)
    rank, ups, tasks = 8, 3, len(TASKS)
    each = [
        rank * i + tasks * rank * rank + ups * rank * o + tasks * ups for i, o in ((768, 768), (768, 3072))
    ]
    assert planned.trainable_parameters == 12 * sum(each)


def test_it_starts_as_the_backbone_with_the_draws_of_the_papers_code():
    model, batch = tiny_backbone("bart")
    model.requires_grad_(False)
    expected = outputs(model, batch)
    attach(model, MTL, TASKS)
    model.set_task("gqa")
    assert torch.equal(outputs(model, batch), expected)
    down, transform, ups, mix = slots_of(model, "mtl_lora.text.encoder.0.ffn.down", "gqa")
    assert torch.equal(transform, torch.eye(2))
    assert not ups.any()
    assert down.abs().max() <= down.shape[0] ** -0.5
    assert mix.abs().max() <= 3**-0.5


def test_merging_does_what_the_unit_does():
    model, batch = adapted(MTL, "bart", noise=0.1)
    model.set_task("gqa")
    expected = outputs(model, batch)
    with merged(model, task="gqa"):
        torch.testing.assert_close(outputs(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_updates_add_up_where_tasks_differ_in_their_transform_alone():
    model, _ = adapted({**MTL, "sharing": {"mix": ["task"]}}, "bart", noise=0.3)
    module = model.model.encoder.layers[0].fc2
    x = torch.randn(2, 3, module.in_features)
    with model.disable_adapter():
        plain = module(x)
    changes = []
    for task in ("vqa", "gqa"):
        model.set_task(task)
        changes.append(module(x) - plain)
    assert combine_tasks(model, "sum", {"vqa": 2.0, "gqa": -0.5}) == 0
    model.set_task("sum")
    torch.testing.assert_close(module(x) - plain, 2 * changes[0] - 0.5 * changes[1], atol=1e-5, rtol=1e-5)


def test_a_fused_map_is_updated_in_its_rows_alone():
    torch.manual_seed(0)
    model, _ = CASES["blip_caption"]()
    attach(model.eval(), {**MTL, "linears": ["value"], "towers": ["vision"], "layers": [0]})
    module = model.vision_model.encoder.layers[0].self_attn.qkv
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(torch.randn_like(value) * 0.2)
    x = torch.randn(2, 3, module.in_features)
    with model.disable_adapter():
        plain = module(x)
    slots = slots_of(model, "mtl_lora.vision.0.attention.value", "default")
    expected = plain.clone()
    expected[..., 32:] += update(x, *slots, scale=3.0, temperature=0.5)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
