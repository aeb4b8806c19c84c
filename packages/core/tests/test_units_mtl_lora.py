"""MTL-LoRA: the paper's formula row by row, its count, and where it starts."""

from typing import ClassVar

import torch

from weft.core import attach, plan
from weft.core.testing import UpdateContract, tiny_backbone
from weft.core.testing.unit_contract import TASKS
from weft.core.testing.update_contract import slots_at

MTL = {
    "method": "mtl_lora",
    "rank": 2,
    "ups": 3,
    "alpha": 6,
    "temperature": 0.5,
    "linears": ["query", "down"],
}


class TestMTLLoRA(UpdateContract):
    method: ClassVar = MTL
    names: ClassVar = ("down.weight", "transform", "up.weight", "mix")
    sharings: ClassVar = [None, "single", "multiple", "half", {"mix": ["task"]}, {"transform": ["task"]}]
    linear: ClassVar = {"mix": ["task"]}

    @staticmethod
    def update(x, down, transform, ups, mix):
        """The paper's formula, `B_i` after `B_i`, times alpha / rank."""
        exponentials = [(value / 0.5).exp() for value in mix]
        hidden = x @ down @ transform
        return 3 * sum(e / sum(exponentials) * (hidden @ up) for e, up in zip(exponentials, ups, strict=True))

    @staticmethod
    def count(inner, outer, tasks):
        return 2 * inner + tasks * 2 * 2 + 3 * 2 * outer + tasks * 3


def test_matrices_are_for_all_tasks_and_transforms_for_each_by_default():
    model, _ = tiny_backbone("bart")
    for bank in plan(model, MTL, TASKS).banks.values():
        assert len(bank.slots) == (1 if bank.key.endswith("weight") else len(TASKS))


def test_it_starts_with_the_draws_of_the_papers_code():
    model, _ = tiny_backbone("bart")
    attach(model, MTL, TASKS)
    down, transform, ups, mix = slots_at(model, "text.encoder.0.ffn.down", TestMTLLoRA.names, "gqa")
    assert torch.equal(transform, torch.eye(2))
    assert not ups.any()
    assert down.abs().max() <= down.shape[0] ** -0.5
    assert mix.abs().max() <= 3**-0.5
