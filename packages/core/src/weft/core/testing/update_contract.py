# ruff: noqa: D102  (the names of tests are sentences)
"""What every low-rank update of linear maps must keep beside `UnitContract`, as tests that go by its formula.

A third party inherits `UpdateContract` in its own test file and sets its attributes; pytest collects the rest.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from weft.core import attach, combine_tasks, merge, merged, plan
from weft.core.errors import AttachError, ConfigError
from weft.core.testing.unit_contract import TASKS, adapted, move_slots, outputs, pytest_ids
from weft.core.testing.vision_language import CASES

close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)


def slots_at(model: Any, address: str, names: tuple[str, ...], task: str) -> list[Tensor]:
    """Tensors of the unit at a site, for one task, in the order of their names."""
    (unit,) = (unit for unit in model.weft.plan.units if unit.site.address == address)
    return [model.weft.banks_by_key[unit.banks[name]].slot_of(task) for name in names]


class UpdateContract:
    """The contract.

    Class attributes:
        method: The method, at queries and at maps out of feed-forward blocks.
        names: Tensors in the order in which `update` takes them.
        sharings: Policies under which rows of a batch are held to the formula; None is the method's own.
        linear: Policy under which tasks differ in tensors that the update is linear in, or None.
        merges: Whether the update is linear in what the map reads.
    """

    method: ClassVar[dict[str, Any]]
    names: ClassVar[tuple[str, ...]]
    sharings: ClassVar[list[Any]] = [None, "single", "multiple", "half"]
    linear: ClassVar[Any] = None
    merges: ClassVar[bool] = True

    @staticmethod
    def update(x: Tensor, *slots: Tensor) -> Tensor:
        """What is added for inputs of one task, shape `(..., out)`, by the formula of the paper."""
        raise NotImplementedError

    @staticmethod
    def count(inner: int, outer: int, tasks: int) -> int:
        """Trained parameters of a map, by the formula of the paper, at the sizes of `method`."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Every policy."""
        if "sharing" in metafunc.fixturenames:
            metafunc.parametrize("sharing", self.sharings, ids=pytest_ids)

    def _method(self, sharing: Any = None, **words: Any) -> dict[str, Any]:
        return {**self.method, **words, **({} if sharing is None else {"sharing": sharing})}

    def test_each_row_gets_the_formula_with_its_tasks_tensors(self, sharing: Any) -> None:
        model, _ = adapted(self._method(sharing), "bart", noise=0.3)
        module = model.model.encoder.layers[0].fc2
        x = torch.randn(3, 5, module.in_features)
        with model.disable_adapter():
            plain = module(x)
        with model.route(tasks=["gqa", None, "vqa"]):
            found = module(x)
        assert torch.equal(found[1], plain[1])
        for row, task in ((0, "gqa"), (2, "vqa")):
            slots = slots_at(model, "text.encoder.0.ffn.down", self.names, task)
            close(found[row], plain[row] + self.update(x[row], *slots))

    def test_the_count_is_that_of_the_formula(self) -> None:
        from transformers import BertConfig, BertModel

        with torch.device("meta"):
            model = BertModel(BertConfig())
        planned = plan(model, self._method(linears=["query", "up"]), TASKS)
        each = [self.count(inner, outer, len(TASKS)) for inner, outer in ((768, 768), (768, 3072))]
        assert planned.trainable_parameters == 12 * sum(each)

    def test_a_fused_map_is_updated_in_its_rows_alone(self) -> None:
        torch.manual_seed(0)
        model, _ = CASES["blip_caption"]()
        attach(model.eval(), self._method(linears=["value"], towers=["vision"], layers=[0]))
        module = model.vision_model.encoder.layers[0].self_attn.qkv
        move_slots(model, 0.2)
        for x in (torch.randn(4, module.in_features), torch.randn(2, 3, module.in_features)):
            with model.disable_adapter():
                expected = module(x)
            slots = slots_at(model, "vision.0.attention.value", self.names, "default")
            found = module(x)
            assert torch.equal(found[..., :32], expected[..., :32])
            added = self.update(x, *slots)
            close(found[..., 32:], expected[..., 32:] + added)

    def test_merging_does_what_the_unit_does(self) -> None:
        model, batch = adapted(self._method("multiple"), "bart", noise=0.1)
        model.set_task("gqa")
        expected = outputs(model, batch)
        if not self.merges:
            with pytest.raises(AttachError, match="must have linear units alone to be merged"):
                merge(model, task="gqa")
            return
        with merged(model, task="gqa"):
            close(outputs(model, batch), expected)

    def test_updates_add_up_where_tasks_differ_in_what_they_are_linear_in(self) -> None:
        model, _ = adapted(self._method(self.linear or "multiple"), "bart", noise=0.3)
        if self.linear is None:
            with pytest.raises(ConfigError, match="must sum to 1"):
                combine_tasks(model, "sum", {"vqa": 2.0, "gqa": -0.5})
            return
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
        close(module(x) - plain, 2 * changes[0] - 0.5 * changes[1])
