"""HydraLoRA: the paper's formula token by token, its count, and its loss for balance."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from weft.core import attach, auxiliary_losses, plan
from weft.core.errors import AttachError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import (
    TASKS,
    adapted,
    checkpoint_activations,
    gradients,
    outputs,
    per_row_loss,
)
from weft.core.testing.vision_language import CASES

HYDRA = {"method": "hydra_lora", "rank": 2, "ups": 3, "alpha": 6, "linears": ["query", "down"]}
BALANCED = {**HYDRA, "balance": 0.1}
KEY = "hydra_lora.text.encoder.0.ffn.down"


def slots_of(model, key, task):
    names = ("down.weight", "up.weight", "router.weight")
    return [model.weft.banks_by_key[f"{key}.{name}"].slot_of(task) for name in names]


def update(x, down, ups, router):
    """The paper's equations for one token, `B_i` after `B_i`, times alpha / rank."""
    shares = (x @ router).softmax(dim=-1)
    return 3.0 * sum(share * (x @ down @ up) for share, up in zip(shares, ups, strict=True))


@pytest.mark.parametrize("sharing", ["single", "multiple", "half", {"router": []}])
def test_each_token_gets_the_papers_formula(sharing):
    model, _ = adapted({**HYDRA, "sharing": sharing}, "bart", noise=0.3)
    module = model.model.encoder.layers[0].fc2
    x = torch.randn(3, 5, module.in_features)
    with model.disable_adapter():
        plain = module(x)
    with model.route(tasks=["gqa", None, "vqa"]):
        found = module(x)
    assert torch.equal(found[1], plain[1])
    for row, task in ((0, "gqa"), (2, "vqa")):
        slots = slots_of(model, KEY, task)
        expected = torch.stack([plain[row, place] + update(x[row, place], *slots) for place in range(5)])
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


def test_the_count_is_that_of_the_formula():
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        model = BertModel(BertConfig())
    planned = plan(model, {"method": "hydra_lora", "rank": 8, "ups": 3, "linears": ["query", "up"]}, TASKS)
    each = [8 * i + 3 * 8 * o + 3 * i for i, o in ((768, 768), (768, 3072))]
    assert planned.trainable_parameters == 12 * sum(each)


def test_it_starts_as_the_backbone():
    model, batch = tiny_backbone("bart")
    model.requires_grad_(False)
    expected = outputs(model, batch)
    attach(model, BALANCED)
    assert torch.equal(outputs(model, batch), expected)


def test_a_fused_map_is_updated_in_its_rows_alone():
    torch.manual_seed(0)
    model, _ = CASES["blip_caption"]()
    attach(model.eval(), {**HYDRA, "linears": ["value"], "towers": ["vision"], "layers": [0]})
    module = model.vision_model.encoder.layers[0].self_attn.qkv
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(torch.randn_like(value) * 0.2)
    x = torch.randn(4, module.in_features)
    with model.disable_adapter():
        expected = module(x)
    expected[:, 32:] += torch.stack(
        [update(row, *slots_of(model, "hydra_lora.vision.0.attention.value", "default")) for row in x]
    )
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


def importance(x, router):
    """Shazeer et al. 2017, equation 6, of the rows of one router."""
    given = (x @ router).softmax(dim=-1).flatten(0, -2).sum(dim=0)
    return given.var(correction=0) / given.mean() ** 2


@pytest.mark.parametrize("sharing", ["single", "multiple"])
def test_the_loss_for_balance_is_the_importance_loss_of_rows_with_a_task(sharing):
    model, _ = adapted({**BALANCED, "sharing": sharing}, "bart", noise=0.5)
    module = model.model.encoder.layers[0].fc2
    x = torch.randn(4, 5, module.in_features)
    with auxiliary_losses(model) as added, model.route(tasks=["gqa", None, "vqa", "gqa"]):
        module(x)
    if sharing == "single":
        expected = importance(x[[0, 2, 3]], slots_of(model, KEY, "vqa")[2])
    else:
        rows = {"gqa": [0, 3], "vqa": [2]}
        expected = sum(importance(x[own], slots_of(model, KEY, task)[2]) for task, own in rows.items()) / 2
    torch.testing.assert_close(added.total(), 0.1 * expected)


def test_an_even_router_owes_nothing():
    model, _ = adapted(BALANCED, "bart", None)
    module = model.model.encoder.layers[0].fc2
    with torch.no_grad():
        slots_of(model, KEY, "default")[2].zero_()
    with auxiliary_losses(model) as added:
        module(torch.randn(2, 3, module.in_features))
    assert added.total() < 1e-6


def test_every_site_adds_its_loss_in_every_pass_and_only_while_they_are_collected():
    model, batch = adapted(BALANCED, "bart", None)
    outputs(model, batch)
    with auxiliary_losses(model) as added:
        assert added.total() == 0
        outputs(model, batch)
        first = added.total()
        outputs(model, batch)
    outputs(model, batch)
    assert len(added.values) == 2 * len(model.weft.plan.units)
    torch.testing.assert_close(added.total(), 2 * first)
    plain, batch = tiny_backbone("bart")
    with auxiliary_losses(plain) as added:
        outputs(plain, batch)
    assert added.total() == 0


def balanced_gradients(**checkpointing):
    model, batch = adapted(BALANCED, "bart", noise=0.3)
    model.train()
    if checkpointing:
        checkpoint_activations(model, **checkpointing)
    with auxiliary_losses(model) as added, model.route(tasks=["gqa", None, "vqa", "gqa"]):
        loss = per_row_loss(model, batch).sum()
        (loss + added.total()).backward()
    assert len(added.values) == len(model.weft.plan.units)
    return gradients(model)


def test_recomputed_activations_change_no_gradient_and_add_no_loss_twice():
    kept, again = balanced_gradients(), balanced_gradients(use_reentrant=False)
    assert kept.keys() == again.keys()
    for name, value in kept.items():
        torch.testing.assert_close(value, again[name], msg=name)


def test_checkpointing_that_would_lose_the_loss_is_refused():
    with pytest.raises(AttachError, match="`use_reentrant` must be false"):
        balanced_gradients(use_reentrant=True)


@pytest.mark.slow
def test_one_graph_adds_the_losses_of_all_routings():
    torch._dynamo.reset()
    model, batch = adapted({**BALANCED, "sharing": "multiple"}, "bart")
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for tasks in (["vqa"] * 4, ["gqa", "vqa", "gqa", "nlvr"]):
        totals = []
        for called in (compiled, model):
            with auxiliary_losses(model) as added, model.route(tasks=tasks):
                outputs(called, batch)
            totals.append(added.total())
        torch.testing.assert_close(*totals)
        assert totals[0].requires_grad
    assert counter.frame_count == 1
