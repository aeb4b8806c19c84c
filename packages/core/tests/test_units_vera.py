"""VeRA: equal to PEFT's, counted by the paper's formula, its matrices one for everything."""

from typing import ClassVar

import pytest
import torch

from weft.core import attach, plan
from weft.core.testing import UpdateContract, tiny_backbone
from weft.core.testing.unit_contract import TASKS, adapted, outputs

VERA = {"method": "vera", "rank": 4, "linears": ["query", "up", "down"]}
MATRICES = {"vera.shared.all.down.weight", "vera.shared.all.up.weight"}


class TestVeRA(UpdateContract):
    method: ClassVar = VERA
    names: ClassVar = ("down.weight", "down.scale", "up.weight", "up.scale")
    sharings: ClassVar = [None, "single", "multiple", "half", {"down": []}, {"projection": ["task"]}]
    linear: ClassVar = "half"

    @staticmethod
    def update(x, a, d, b, e):
        inner, outer = x.shape[-1], e.shape[-1]
        return (x @ a[:inner] * d) @ b[:, :outer] * e

    @staticmethod
    def count(inner, outer, tasks):
        return 4 + outer


def matrices(model):
    return {bank.key for bank in model.weft.plan.banks.values() if not bank.spec.trainable}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's
def test_peft_on_the_whole_model_gives_the_same():
    peft = pytest.importorskip("peft")
    model, batch = adapted(VERA, "bart", None, noise=0.2)
    base, _ = tiny_backbone("bart")
    targets = ["q_proj", "fc1", "fc2"]
    theirs = peft.get_peft_model(base, peft.VeraConfig(r=4, target_modules=targets, d_initial=0.1)).eval()
    count = 0
    with torch.no_grad():
        for unit in model.weft.plan.units:
            layer = theirs.base_model.model.get_submodule(unit.site.path)
            ours = {name: model.weft.banks_by_key[key].slot_of("default") for name, key in unit.banks.items()}
            layer.vera_A["default"].copy_(ours["down.weight"].mT)
            layer.vera_B["default"].copy_(ours["up.weight"].mT)
            layer.vera_lambda_d["default"].copy_(ours["down.scale"])
            layer.vera_lambda_b["default"].copy_(ours["up.scale"])
            count += layer.vera_lambda_d["default"].numel() + layer.vera_lambda_b["default"].numel()
        torch.testing.assert_close(outputs(model, batch), outputs(theirs, batch), atol=1e-6, rtol=1e-6)
    assert count == model.weft.plan.trainable_parameters


def test_it_starts_with_the_draws_of_peft():
    model, _ = tiny_backbone("bart")
    attach(model, {**VERA, "rank": 64})
    for key in MATRICES:
        value = model.weft.banks_by_key[key].slot_of("default")
        bound = (6 / value.shape[0]) ** 0.5
        assert 0.95 * bound < value.abs().max() <= bound
    starts = {
        bank.key.rsplit(".", 2)[-2]: model.weft.banks_by_key[bank.key].slot_of("default")
        for bank in model.weft.plan.banks.values()
        if bank.key.endswith("scale")
    }
    assert (starts["down"] == 0.1).all()
    assert not starts["up"].any()


@pytest.mark.parametrize("sharing", ["single", "multiple", "half", {"down": []}])
def test_the_matrices_are_one_for_all_maps_and_tasks_whatever_is_shared(sharing):
    model, _ = tiny_backbone("bart")
    attach(model, {**VERA, "sharing": sharing}, TASKS)
    assert matrices(model) == MATRICES


def test_a_policy_that_names_the_matrices_has_its_way():
    model, _ = tiny_backbone("bart")
    attach(model, {**VERA, "sharing": {"projection": ["task", "stack", "block"]}}, TASKS)
    assert matrices(model) == {
        f"vera.text.{layer}.{half}.weight" for layer in (0, 1) for half in ("down", "up")
    }


def test_each_map_trains_its_rank_and_its_outputs():
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        model = BertModel(BertConfig())
    planned = plan(model, {"method": "vera", "rank": 1024, "linears": ["query", "value"]})
    # The paper's formula, L (d + r), at rank 1024 with queries and values of twelve layers.
    assert planned.trainable_parameters == 24 * (768 + 1024) == 43_008
    assert planned.total_parameters - planned.backbone_parameters == 43_008 + 2 * 768 * 1024
