"""Several units at once, and every policy on every unit: mixed rows are those of single tasks, or it is refused."""

import pytest
import torch

from weft.core import attach, load_adapter, plan
from weft.core.errors import AddressError, ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import (
    HALF_SHARED,
    ROWS,
    TASKS,
    UnitContract,
    adapted,
    assert_rows_are_single,
    outputs,
    pytest_ids,
    registered,
)

LORA = {"method": "lora", "rank": 2, "sharing": "multiple"}
PROMPT = {"method": "prompt", "length": 3, "sharing": "multiple"}
COMPOSITIONS = {
    "adapter and prompt": [HALF_SHARED, PROMPT],
    "adapter and LoRA": [HALF_SHARED, LORA],
    "LoRA, factors and prefix": [
        LORA,
        {"method": "ia3"},
        {"method": "prefix", "length": 2, "sharing": "multiple"},
    ],
}
POLICIES = [
    "single",
    "multiple",
    "half",
    "unified",
    {"preset": "half", "shared": "down"},
    {"default": ["layer"]},
    {"default": ["stack"]},
    {"default": ["block"]},
    {"default": ["modality"]},
    {"default": ["task", "layer", "stack", "block", "modality"]},
    {"preset": "multiple", "layer_group": 2},
    {"default": {"task": [["vqa", "gqa"], ["nlvr"], ["caption"]]}},
    {"preset": "multiple", "layers": [{"range": 0, "preset": "single"}]},
]


@pytest.mark.parametrize("backbone", ["bart", "clip"])
@pytest.mark.parametrize("methods", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_units_of_a_composition_keep_rows_apart_and_come_back(methods, backbone, tmp_path):
    model, batch = adapted(methods, backbone)
    assert_rows_are_single(model, batch)
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone(backbone)
    load_adapter(other, tmp_path)
    with torch.no_grad(), model.route(tasks=list(ROWS)), other.route(tasks=list(ROWS)):
        expected = outputs(model, batch)
        assert torch.equal(outputs(other, batch), expected)
    # Each unit matters beside the others.
    for key, slot, value in model.weft.slots():
        assert value.grad is not None, (key, slot)
    assert {bank.key.split(".")[0] for bank in model.weft.plan.banks.values()} == {
        words["method"] for words in methods
    }


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("config", registered(), ids=pytest_ids)
def test_a_policy_is_exact_or_refused_with_a_reason(config, policy):
    words = {**config.model_dump(exclude_unset=True), "method": config.method, "sharing": policy}
    for backbone in UnitContract()._backbones_of(config):
        model, _ = tiny_backbone(backbone)
        try:
            plan(model, words, TASKS)
        except (ConfigError, AddressError) as error:
            assert "`sharing" in str(error)  # noqa: PT017  (some are meaningless, and which is tested elsewhere)
            with pytest.raises(type(error)):
                attach(model, words, TASKS)
            assert not hasattr(model, "weft")
        else:
            assert_rows_are_single(*adapted(words, backbone))
