"""Balancing tasks: uncertainty weights and PCGrad are what their equations say, in runs that resume."""

import math

import pytest
import torch

from weft.core import attach
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import per_row_loss, rows_of
from weft.train.engine.balance import PCGrad, Uncertainty
from weft.train.errors import RunError
from weft.train.preflight.fitness import check_balance
from weft.train.processes import Processes
from weft.train.recipe.training import Recipe
from weft.train.runs.run import execute
from weft.train.testing.curves import assert_same_weights

TASKS = ("vqa", "gqa")
MIXED = {"unit": "mixed"}


def test_uncertainty_weighs_losses_and_follows_its_gradient():
    balance = Uncertainty(TASKS, rate=0.1)
    losses = torch.tensor([2.0, 4.0, 1.0], requires_grad=True)
    weighted = balance.weighted(losses, ["vqa", "vqa", "gqa"])
    assert torch.equal(weighted, losses)
    expected = [-0.1 * (0.5 - 3.0), -0.1 * (0.5 - 1.0)]
    assert balance.log_variances.tolist() == pytest.approx(expected)
    again = balance.weighted(losses, ["gqa"] * 3)
    assert again.tolist() == pytest.approx([math.exp(-expected[1]) * value for value in (2.0, 4.0, 1.0)])
    assert balance.log_variances[0].item() == pytest.approx(expected[0])


def test_uncertainty_settles_where_the_weighted_losses_are_a_half():
    balance = Uncertainty(TASKS, rate=0.05)
    for _ in range(2000):
        weighted = balance.weighted(torch.tensor([3.0, 0.2]), list(TASKS))
    assert weighted.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


class Line(torch.nn.Module):
    """One weight of two numbers, and what PCGrad asks of an adapted model."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))

    @property
    def weft(self):
        return self

    def slots(self):
        return iter([("bank", "shared", self.weight)])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)),
        ((1.0, 1.0), (1.0, 0.0), (2.0, 1.0)),
        # by hand: g1·g2 = -1, |g1|² = 1 and |g2|² = 2, so (1, 0) + (-0.5, 0.5) and (-1, 1) + (1, 0)
        ((1.0, 0.0), (-1.0, 1.0), (0.5, 1.5)),
        ((1.0, 0.0), (-1.0, 0.0), (0.0, 0.0)),
    ],
    ids=["orthogonal", "agreeing", "conflicting", "opposite"],
)
def test_pcgrad_takes_what_conflicts(first, second, expected):
    model = Line()
    balance = PCGrad(model)
    losses = torch.stack([model.weight @ torch.tensor(first), model.weight @ torch.tensor(second)])
    balance.take(losses, TASKS, 1.0)
    balance.finish()
    assert model.weight.grad.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("sharing", ["single", "half", {"up": {"task": [["vqa", "gqa"], ["nlvr"]]}}], ids=str)
def test_pcgrad_over_small_batches_is_that_of_one_and_leaves_own_slots_alone(sharing):
    tasks = ("vqa", "gqa", "nlvr")
    method = {"method": "bottleneck", "bottleneck_size": 4, "sharing": sharing}
    found = []
    for pieces in ([[0, 1, 2]], [[0], [1], [2]]):
        model, batch = tiny_backbone("bart")
        torch.manual_seed(0)
        attach(model, method, tasks)
        with torch.no_grad():
            for _, _, value in model.weft.slots():
                value.add_(torch.randn_like(value) * 0.05)
        balance = PCGrad(model)
        for rows in pieces:
            own = [tasks[row] for row in rows]
            with model.route(tasks=own):
                balance.take(per_row_loss(model, rows_of(batch, rows)), own, 1 / 3)
        balance.finish()
        found.append({(key, slot): value.grad for key, slot, value in model.weft.slots()})
    for key, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][key], atol=1e-6, rtol=1e-4)
    model.zero_grad()
    with model.route(tasks=list(tasks)):
        (per_row_loss(model, rows_of(batch, [0, 1, 2])).sum() / 3).backward()
    for key, slot, value in model.weft.slots():
        if slot in tasks:
            torch.testing.assert_close(found[1][key, slot], value.grad, atol=1e-6, rtol=1e-4)


def recipe_of(values, **training):
    values["training"] |= training
    return Recipe.model_validate(values)


def alike(values):
    """Tasks whose batches may be mixed."""
    values["tasks"]["gqa"] = {**values["tasks"].pop("nlvr"), "metric": "gqa", "prompt": "gqa: "}
    values["tasks"]["gqa"]["data"] = {**values["tasks"]["gqa"]["data"]}
    values["tasks"]["gqa"]["data"]["options"] = {"task": "gqa", "size": 40, "num_scenes": 30}
    return values


@pytest.mark.parametrize("balance", ["uncertainty", "pcgrad"])
def test_a_balanced_run_resumes_to_the_same_weights(values, balance):
    values = alike(values)
    training = {"balance": balance, "mixing": MIXED, "save_every": 3}
    whole = recipe_of({**values, "name": "whole"}, **training)
    execute(whole)
    first = recipe_of({**values, "name": "parts"}, **training)
    execute(first)
    folder = first.folder
    for path in ("result.json", "adapter", "checkpoints/checkpoint-6"):
        gone = folder / path
        gone.rename(folder.parent / f"away-{gone.name}")
    execute(first, resume=True)
    assert_same_weights(whole.folder, folder)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"balance": "pcgrad"}, "needs steps with rows of several tasks: set `mixing.unit: mixed`"),
        ({"balance": "pcgrad", "mixing": MIXED, "precision": "fp16"}, "needs `precision` fp32 or bf16"),
        ({"balance": "pcgrd"}, "balance"),
    ],
    ids=["one task a step", "fp16", "unknown"],
)
def test_balances_that_cannot_be_are_refused(values, training, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(values, **training)


def test_pcgrad_is_refused_to_several_processes_and_units_with_losses(values):
    recipe = recipe_of(values, balance="pcgrad", mixing=MIXED)
    with pytest.raises(RunError, match="must not be 'pcgrad' with several processes, but there are 2"):
        check_balance(recipe, Processes(0, 2, torch.device("cpu")))
    owing = recipe.model_copy(update={"method": {"method": "hydra_lora", "rank": 2, "balance": 0.1}})
    with pytest.raises(RunError, match=r"where units add to the loss of a batch, but 'hydra_lora' does"):
        check_balance(owing, Processes(0, 1, torch.device("cpu")))
