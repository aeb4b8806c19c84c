"""HydraLoRA: the paper's formula token by token, its count, and its loss for balance."""

from typing import ClassVar

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from weft.core import auxiliary_losses
from weft.core.errors import AttachError
from weft.core.testing import UpdateContract, tiny_backbone
from weft.core.testing.unit_contract import (
    adapted,
    checkpoint_activations,
    gradients,
    outputs,
    per_row_loss,
)
from weft.core.testing.update_contract import slots_at

HYDRA = {"method": "hydra_lora", "rank": 2, "ups": 3, "alpha": 6, "linears": ["query", "down"]}
BALANCED = {**HYDRA, "balance": 0.1}


class TestHydraLoRA(UpdateContract):
    method: ClassVar = HYDRA
    names: ClassVar = ("down.weight", "up.weight", "router.weight")
    sharings: ClassVar = [None, "single", "multiple", "half", {"router": []}]
    merges: ClassVar = False

    @staticmethod
    def update(x, down, ups, router):
        """The paper's equations for every token, `B_i` after `B_i`, times alpha / rank."""
        shares = (x @ router).softmax(dim=-1).unbind(dim=-1)
        return 3 * sum(share[..., None] * (x @ down @ up) for share, up in zip(shares, ups, strict=True))

    @staticmethod
    def count(inner, outer, tasks):
        return 2 * inner + 3 * 2 * outer + 3 * inner


def router_of(model, task):
    return slots_at(model, "text.encoder.0.ffn.down", ("router.weight",), task)[0]


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
        expected = importance(x[[0, 2, 3]], router_of(model, "vqa"))
    else:
        rows = {"gqa": [0, 3], "vqa": [2]}
        expected = sum(importance(x[own], router_of(model, task)) for task, own in rows.items()) / 2
    torch.testing.assert_close(added.total(), 0.1 * expected)


def test_an_even_router_owes_nothing():
    model, _ = adapted(BALANCED, "bart", None)
    module = model.model.encoder.layers[0].fc2
    with torch.no_grad():
        router_of(model, "default").zero_()
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
