"""Gradients that `weft share` takes: by hand, mixed or apart, interrupted and resumed; and planted truths."""

import numpy as np
import pytest
import torch

from weft.core import attach, plan
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import per_row_loss, rows_of
from weft.train.runs.share.cells import across_tasks, cells_of
from weft.train.runs.share.gradients import SKETCH, Gradients, Steps, gather, separate_tasks
from weft.train.runs.share.measurement import Measuring
from weft.train.runs.share.policy import sharing_of
from weft.train.runs.share.proposal import can_be_said, proposals
from weft.train.testing.planted_tasks import METHOD, TASKS, PlantedTasks

TWO = ("vqa", "gqa")


def shared_model(noise=0.05):
    """A BART of two layers a stack whose tasks share all weights, away from the start."""
    model, batch = tiny_backbone("bart")
    method = {"method": "bottleneck", "bottleneck_size": 4}
    attach(model, across_tasks(plan(model, method, TWO), shared=True), TWO)
    torch.manual_seed(1)
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(torch.randn_like(value) * noise)
    return model, batch


def test_a_gradient_is_that_of_the_shared_weight_computed_by_hand():
    model, batch = shared_model()
    by_hand = {}
    for row, task in enumerate(TWO):
        model.zero_grad()
        with model.route(task=task):
            per_row_loss(model, rows_of(batch, [row])).mean().backward()
        for key, _, value in model.weft.slots():
            by_hand[key, task] = value.grad.flatten().clone()
    separate_tasks(model)
    with model.route(tasks=list(TWO)):
        per_row_loss(model, rows_of(batch, [0, 1])).sum().backward()
    for cell in cells_of(model.weft.plan):
        found = gather(model, cell)
        for row, task in enumerate(TWO):
            expected = torch.cat([by_hand[key, task] for key in cell.banks])
            torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=1e-5)


def measuring_of(model, batch, batches=6, looks=3, mixed=True):
    def draw(number):
        rows = np.random.default_rng(number).permutation(4)
        both = [rows_of(batch, [int(rows[0]), int(rows[1])]), list(TWO)]
        if mixed:
            return [both]
        return [(rows_of(batch, [int(row)]), [task]) for row, task in zip(rows[:2], TWO, strict=True)]

    def losses(piece):
        with model.route(tasks=list(piece[1])):
            return per_row_loss(model, piece[0]), piece[1]

    return Measuring(model, cells_of(model.weft.plan), draw, losses, batches=batches, looks=looks)


def test_one_mixed_pass_gives_what_a_pass_for_each_task_gives():
    found = []
    for mixed in (True, False):
        model, batch = shared_model()
        separate_tasks(model)
        measuring = measuring_of(model, batch, mixed=mixed)
        measuring.run()
        found.append(measuring.measured())
    for one, other in zip(found[0].products, found[1].products, strict=True):
        np.testing.assert_allclose(one.between, other.between, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found[0].affinity, found[1].affinity, rtol=1e-3, atol=1e-7)


def test_a_measurement_leaves_the_weights_and_no_gradients():
    model, batch = shared_model()
    separate_tasks(model)
    before = {(key, slot): value.detach().clone() for key, slot, value in model.weft.slots()}
    measuring_of(model, batch).run()
    for key, slot, value in model.weft.slots():
        assert torch.equal(value, before[key, slot])
        assert value.grad is None


def test_a_measurement_that_was_interrupted_resumes_to_the_same():
    model, batch = shared_model()
    separate_tasks(model)
    whole = measuring_of(model, batch)
    whole.run()
    for stop in (2, 7):
        first, kept = measuring_of(model, batch), {}

        def after(done, stop=stop, kept=kept, first=first):
            if done == stop:
                kept.update({name: value.clone() for name, value in first.state().items()})
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            first.run(after)
        second = measuring_of(model, batch)
        second.load(kept)
        assert second.done == stop
        second.run()
        for one, other in zip(second.measured().products, whole.measured().products, strict=True):
            np.testing.assert_array_equal(one.between, other.between)
        np.testing.assert_array_equal(second.measured().affinity, whole.measured().affinity)


def test_steps_lower_the_loss_of_their_task_and_go_back():
    model, batch = shared_model()
    separate_tasks(model)
    with model.route(tasks=["vqa"] * 4):
        per_row_loss(model, batch).sum().backward()
    cells = cells_of(model.weft.plan)
    steps = Steps(model, cells, [gather(model, cell) for cell in cells], rate=1e-3)

    def loss():
        with torch.no_grad(), model.route(tasks=["gqa"] * 4):
            return float(per_row_loss(model, batch).sum())

    before = loss()
    steps.to(0)
    assert loss() < before
    steps.back()
    assert loss() == before


def test_sketches_are_exact_for_small_cells_and_unbiased_for_large_ones():
    model, _ = shared_model()
    cells = cells_of(model.weft.plan)
    kept = Gradients(cells, 2, 4, torch.device("cpu"))
    small = torch.randn(2, 100)
    assert kept._sketch(small, 0) is small
    large = torch.randn(2, 5 * SKETCH + 3, generator=torch.Generator().manual_seed(0)) + 0.5
    found = []
    for seed in range(50):
        sketch = Gradients(cells, 2, 4, torch.device("cpu"), seed=seed)._sketch(large, 0)
        assert sketch.shape == (2, SKETCH)
        found.append(float(sketch[0] @ sketch[1]))
    exact = float(large[0] @ large[1])
    assert np.mean(found) == pytest.approx(exact, abs=3 * np.std(found) / np.sqrt(50))


def right(planted, seed):
    """Whether what is said of planted tasks is the truth about them."""
    tasks = PlantedTasks(planted, seed)
    tasks.train()
    measured = tasks.measure()
    if planted == "noise":
        return not can_be_said(measured)
    if not can_be_said(measured):
        return False
    apart = {
        (choice.cells[0].tower, choice.cells[0].part): len(choice.partition) == 2
        for choice in proposals(measured)[0].choices
    }
    planned = plan(tiny_backbone("clip")[0], METHOD, TASKS)
    plan(
        tiny_backbone("clip")[0],
        {**METHOD, "sharing": sharing_of(proposals(measured)[0], planned, TASKS)[0]},
        TASKS,
    )
    expected = {"equal": (False, False), "contradicting": (True, True), "vision_alone": (True, False)}[
        planted
    ]
    return all(own == expected[tower == "vision"] for (tower, _), own in apart.items())


@pytest.mark.parametrize("planted", ["vision_alone", "noise"])
def test_a_planted_truth_is_found(planted):
    assert right(planted, seed=100)


@pytest.mark.slow
def test_nineteen_of_twenty_planted_truths_are_found():
    found = {
        (planted, seed): right(planted, seed)
        for planted in ("equal", "contradicting", "vision_alone", "noise")
        for seed in range(5)
    }
    assert sum(found.values()) >= 19, [case for case, good in found.items() if not good]
