"""What a batch prepares once: its rows sorted by task, and the slots of a tensor in one buffer."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from weft.core.testing.unit_contract import ROWS, TASKS, adapted, checkpoint_activations, per_row_loss

MULTIPLE = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"}
COMPACTER = {"method": "compacter", "init": "xavier", "bottleneck_size": 8, "sharing": "multiple"}


class Counter(TorchDispatchMode):
    """Counts calls of operations by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))

    def count(self, word):
        return sum(word in name for name in self.names)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("method", [MULTIPLE, COMPACTER], ids=["bottleneck", "compacter"])
def test_rows_are_sorted_once_in_a_step_and_slots_never_copied(method, recompute):
    model, batch = adapted(method, "bart", TASKS)
    if recompute:
        checkpoint_activations(model)
    with Counter() as counted, model.route(tasks=list(ROWS)):
        per_row_loss(model.train(), batch).sum().backward()
    assert counted.count("weft::sort_rows") == 1
    assert counted.count("aten::sort") == counted.count("aten::argsort") == 0
    assert counted.count("weft::adapter_bottleneck") > 2
    banks = [bank for bank in model.weft.banks_by_key.values() if len(bank.slots) > 1]
    assert all(bank.stacked().data_ptr() == bank.slot_of(TASKS[0]).data_ptr() for bank in banks)


def lies_together(bank):
    return bank.stacked().data_ptr() == bank.slot_of(bank.slots[0]).data_ptr()


def test_slots_lie_together_after_all_that_moves_them():
    model, _ = adapted(MULTIPLE, "bart", TASKS)
    bank = next(bank for bank in model.weft.banks_by_key.values() if len(bank.slots) > 1)
    parameters = list(bank.parameters())
    model.double().float()
    assert lies_together(bank)
    assert all(one is other for one, other in zip(bank.parameters(), parameters, strict=True))
    model.add_task("new", like=TASKS[0])
    assert lies_together(bank)
    assert torch.equal(bank.stacked()[-1], bank.stacked()[0])
    model.remove_task(TASKS[1])
    assert lies_together(bank)
    other = copy.deepcopy(bank)
    assert lies_together(other)
    assert other.stacked().data_ptr() != bank.stacked().data_ptr()
    with torch.no_grad():
        bank.slot_of("new").fill_(3.0)
    assert (bank.stacked()[-1] == 3).all()
    assert not (other.stacked()[-1] == 3).all()


def test_a_slot_with_memory_of_its_own_is_stacked_with_the_others():
    model, _ = adapted(MULTIPLE, "bart", TASKS)
    bank = next(bank for bank in model.weft.banks_by_key.values() if len(bank.slots) > 1)
    bank.slot_of(TASKS[2]).data = torch.full_like(bank.slot_of(TASKS[2]), 7.0)
    assert (bank.stacked()[2] == 7).all()
    assert not lies_together(bank)


def test_the_gradient_of_every_slot_is_its_row_of_the_gradient_of_the_buffer():
    model, _ = adapted(MULTIPLE, "bart", TASKS)
    bank = next(bank for bank in model.weft.banks_by_key.values() if len(bank.slots) > 1)
    factors = torch.randn_like(bank.stacked().detach())
    (bank.stacked() * factors).sum().backward()
    for place, value in enumerate(bank.parameters()):
        assert torch.equal(value.grad, factors[place])
    bank.slot_of(TASKS[0]).requires_grad_(False)
    bank.zero_grad()
    bank.stacked().sum().backward()
    assert [value.grad is None for value in bank.parameters()] == [True, *[False] * (len(TASKS) - 1)]


@pytest.mark.parametrize("moved", [False, True], ids=["as made", "moved"])
def test_a_slot_changed_before_the_backward_pass_is_refused(moved):
    model, batch = adapted(MULTIPLE, "bart", TASKS)
    if moved:
        model.double()
    with model.route(tasks=list(ROWS)):
        loss = per_row_loss(model, batch).sum()
    with torch.no_grad():
        next(bank for bank in model.weft.banks_by_key.values() if len(bank.slots) > 1).slot_of(TASKS[0]).add_(
            1
        )
    with pytest.raises(RuntimeError, match=r"must not be changed in place between|modified inplace"):
        loss.backward()


def kept_bytes(model, batch, tasks):
    """What a forward pass keeps for the backward pass, parameters left out."""
    kept, own = {}, {value.data_ptr() for value in model.parameters()}
    with (
        torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.update({(t.data_ptr(), t.shape): t}) or t, lambda t: t
        ),
        model.route(tasks=tasks),
    ):
        loss = per_row_loss(model.train(), batch).sum()
    assert loss.requires_grad
    return sum(t.nbytes for (place, _), t in kept.items() if place not in own)


def test_dropout_of_lora_keeps_no_masks_and_no_dropped_inputs():
    plain, dropping = (
        kept_bytes(*adapted({"method": "lora", "rank": 2, "dropout": dropout}, "bart", TASKS), list(ROWS))
        for dropout in (0.0, 0.5)
    )
    assert dropping - plain < 1024  # a seed per site
