"""Several units at once, and every policy on every unit: mixed rows are those of single tasks, or it is refused."""

import pytest
import torch

from weft.core import attach, load_adapter, plan
from weft.core.errors import AddressError, ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import (
    ROWS,
    TASKS,
    UnitContract,
    adapted,
    gradients,
    outputs,
    per_row_loss,
    pytest_ids,
    registered,
    rows_of,
)

ADAPTER = {
    "method": "bottleneck",
    "init": "bert",
    "bottleneck_size": 4,
    "sharing": "half",
    "train_full": ["norms"],
}
LORA = {"method": "lora", "rank": 2, "sharing": "multiple"}
PROMPT = {"method": "prompt", "length": 3, "sharing": "multiple"}
COMPOSITIONS = {
    "adapter and prompt": [ADAPTER, PROMPT],
    "adapter and LoRA": [ADAPTER, LORA],
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


def assert_rows_are_single(model, batch):
    with model.route(tasks=list(ROWS)):
        losses = per_row_loss(model, batch)
    losses.sum().backward()
    mixed = gradients(model)
    model.zero_grad()
    for row, task in enumerate(ROWS):
        with model.route(task=task):
            loss = per_row_loss(model, rows_of(batch, [row]))
        torch.testing.assert_close(loss[0], losses[row], atol=1e-6, rtol=1e-6)
        loss.sum().backward()
    single = gradients(model)
    assert mixed.keys() == single.keys()
    for name, gradient in mixed.items():
        torch.testing.assert_close(gradient, single[name], atol=1e-6, rtol=1e-5, msg=name)


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
