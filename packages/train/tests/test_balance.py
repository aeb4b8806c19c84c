"""Balancing tasks: uncertainty weights, GradNorm and PCGrad are what their equations say, in runs that resume."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import yaml

from weft.core import attach
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import per_row_loss, rows_of
from weft.train.engine.balance import GradNorm, PCGrad, Uncertainty
from weft.train.errors import RunError
from weft.train.preflight.fitness import check_balance
from weft.train.recipe.training import Recipe
from weft.train.runs.run import execute
from weft.train.testing.curves import assert_same_curve, assert_same_weights

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
    """One weight of two numbers, and what balances ask of an adapted model."""

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
    balance = PCGrad(model, TASKS)
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
        balance = PCGrad(model, tasks)
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


def test_gradnorm_weighs_tasks_as_computed_by_hand():
    model = Line()
    balance = GradNorm(model, TASKS, alpha=1.0)
    slopes = torch.tensor([[3.0, 4.0], [0.6, 0.8]])  # lengths 5 and 1
    start = torch.tensor([2.0, 1.0])

    def step():
        model.weight.grad = None
        losses = start + slopes @ model.weight
        balance.take(losses[[0, 0, 1]], ["vqa", "vqa", "gqa"], 1 / 3)
        balance.finish()

    step()
    # The first step: weights 1 and 1, so the gradient is the plain one; both losses are as they were at first, so the
    # target is the mean length 3 for both, and w goes down for vqa and up for gqa by Adam's first step of 0.025.
    assert model.weight.grad.tolist() == pytest.approx([(2 * 3.0 + 0.6) / 3, (2 * 4.0 + 0.8) / 3])
    assert balance.weights.tolist() == pytest.approx([0.975, 1.025])
    with torch.no_grad():
        model.weight.copy_(torch.tensor([-0.2, 0.0]))
    step()
    # By hand: losses 1.4 and 0.88, left 0.7 and 0.88 of the first; r = 0.7 / 0.79 and 0.88 / 0.79. Lengths 4.875 and
    # 1.025, mean 2.95, targets 2.6139 and 3.2861: the same signs, so Adam goes on by 0.025; the sum stays 2.
    assert model.weight.grad.tolist() == pytest.approx(
        [(0.975 * 2 * 3.0 + 1.025 * 0.6) / 3, (0.975 * 2 * 4.0 + 1.025 * 0.8) / 3]
    )
    assert balance.weights.tolist() == pytest.approx([0.95, 1.05])


def test_gradnorm_makes_gradients_equally_long_and_favours_tasks_that_lag_behind():
    for alpha, ratio in ((0.0, 1.0), (1.0, 0.5)):
        model = Line()
        balance = GradNorm(model, TASKS, alpha=alpha)
        # vqa's loss has fallen to a half, gqa's has not.
        balance.first_losses.copy_(torch.tensor([2.0, 1.0]))
        for _ in range(400):
            losses = torch.stack([1 + 3 * model.weight[0], 1 + model.weight[1]])
            balance.take(losses, list(TASKS), 0.5)
            balance.finish()
        lengths = balance.weights * torch.tensor([3.0, 1.0])
        assert float(lengths[0] / lengths[1]) == pytest.approx(ratio, rel=0.1)
        assert float(balance.weights.sum()) == pytest.approx(2)


def test_gradnorm_leaves_the_weights_of_absent_tasks():
    model = Line()
    balance = GradNorm(model, ("vqa", "gqa", "nlvr"))
    losses = torch.stack([1 + 3 * model.weight[0], 1 + model.weight[1]])
    balance.take(losses, ["vqa", "nlvr"], 0.5)
    balance.finish()
    assert balance.weights.tolist() == pytest.approx([0.975, 1.0, 1.025])


def test_gradnorm_stays_finite_where_losses_are_zero_and_tasks_reach_no_shared_weight():
    model, elsewhere = Line(), torch.zeros(1, requires_grad=True)
    balance = GradNorm(model, TASKS)
    for value in (0.0, 0.0, 1.0):
        balance.take(elsewhere, ["vqa"], 0.5)
        balance.take(value * (1 + model.weight[1:]), ["gqa"], 0.5)
        balance.finish()
        assert bool(torch.isfinite(balance.weights).all())
        assert float(balance.weights.sum()) == pytest.approx(2)
    assert bool(torch.isfinite(model.weight.grad).all())


def test_gradnorm_needs_weights_that_all_tasks_share():
    model, _ = tiny_backbone("bart")
    attach(model, {"method": "bottleneck", "bottleneck_size": 4, "sharing": "multiple"}, TASKS)
    with pytest.raises(
        RunError, match="must not be 'gradnorm' where no trained weight is shared by all tasks"
    ):
        GradNorm(model, TASKS)


def recipe_of(values, **training):
    values["training"] |= training
    return Recipe.model_validate(values)


def alike(values):
    """Tasks whose batches may be mixed."""
    values["tasks"]["gqa"] = {**values["tasks"].pop("nlvr"), "metric": "gqa", "prompt": "gqa: "}
    values["tasks"]["gqa"]["data"] = {**values["tasks"]["gqa"]["data"]}
    values["tasks"]["gqa"]["data"]["options"] = {"task": "gqa", "size": 40, "num_scenes": 30}
    return values


@pytest.mark.parametrize("balance", ["uncertainty", "gradnorm", "pcgrad"])
def test_a_balanced_run_resumes_to_the_same_weights(values, balance):
    values = alike(values)
    values["tasks"]["third"] = {**values["tasks"]["vqa"]}
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
        ({"balance": "gradnorm"}, "`balance: gradnorm` needs steps with rows of several tasks"),
        (
            {"balance": "pcgrad", "mixing": MIXED, "balance_alpha": 1.0},
            "`balance_alpha` needs `balance: gradnorm`",
        ),
        ({"balance": "pcgrd"}, "balance"),
    ],
    ids=["one task a step", "fp16", "one task a step with gradnorm", "alpha of another", "unknown"],
)
def test_balances_that_cannot_be_are_refused(values, training, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(values, **training)


@pytest.mark.parametrize("balance", ["gradnorm", "pcgrad"])
def test_balances_of_gradients_are_refused_to_units_with_losses(values, balance):
    recipe = recipe_of(values, balance=balance, mixing=MIXED)
    check_balance(recipe)
    owing = recipe.model_copy(update={"method": {"method": "hydra_lora", "rank": 2, "balance": 0.1}})
    with pytest.raises(RunError, match=r"where units add to the loss of a batch, but 'hydra_lora' does"):
        check_balance(owing)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize("balance", ["gradnorm", "pcgrad"])
def test_two_processes_balance_as_one_does(values, tmp_path, balance):
    values = alike(values)
    values["training"] |= {"balance": balance, "mixing": MIXED, "log_every": 1, "save_every": 6}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, words in (("one", []), ("two", launcher)):
        command = [sys.executable, *words, "-m", "weft.train", str(recipe), f"name={name}"]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    output = Path(values["output"])
    assert_same_curve(output / "one", output / "two", values["training"]["steps"])
