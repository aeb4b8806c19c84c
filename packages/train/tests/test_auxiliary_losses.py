"""What units add to the loss reaches the training loop."""

from types import SimpleNamespace

import pytest
import torch

from weft.core import attach
from weft.core.testing import tiny_backbone
from weft.train.engine.sharding import check_shardable
from weft.train.engine.task_losses import TaskLosses
from weft.train.engine.trainer import MultiTaskTrainer
from weft.train.errors import RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights

HYDRA = {"method": "hydra_lora", "rank": 2, "sharing": "multiple"}


def recipe(values, name, *, balance, checkpointing=False):
    values["method"] = {**HYDRA, "balance": balance}
    return load_recipe(values, [f"name={name}", f"training.checkpointing={str(checkpointing).lower()}"])


@pytest.fixture
def seen(monkeypatch):
    """Every loss that the trainer returned, beside the mean over rows that it logs by task."""
    returned, means = [], []
    compute, note = MultiTaskTrainer.compute_loss, TaskLosses.note

    def computing(self, *args, **kwargs):
        loss = compute(self, *args, **kwargs)
        returned.append(loss.detach())
        return loss

    def noting(self, tasks, records, losses, *args, **kwargs):
        means.append(losses.detach().mean())
        return note(self, tasks, records, losses, *args, **kwargs)

    monkeypatch.setattr(MultiTaskTrainer, "compute_loss", computing)
    monkeypatch.setattr(TaskLosses, "note", noting)
    return SimpleNamespace(returned=returned, means=means)


def test_the_loss_that_is_trained_holds_what_units_add(values, seen):
    balanced = execute(recipe(values, "balanced", balance=10.0))
    assert seen.returned
    assert all(loss > mean for loss, mean in zip(seen.returned, seen.means, strict=True))
    seen.returned.clear()
    seen.means.clear()
    plain = execute(recipe(values, "plain", balance=0.0))
    assert all(torch.equal(loss, mean) for loss, mean in zip(seen.returned, seen.means, strict=True))
    routers = [name for name in adapter_weights(plain.folder) if ".router." in name]
    assert routers
    assert not all(
        torch.equal(adapter_weights(plain.folder)[name], adapter_weights(balanced.folder)[name])
        for name in routers
    )


def test_recomputed_activations_change_nothing_of_it(values):
    kept = adapter_weights(execute(recipe(values, "kept", balance=10.0)).folder)
    again = adapter_weights(execute(recipe(values, "again", balance=10.0, checkpointing=True)).folder)
    for name, value in kept.items():
        torch.testing.assert_close(again[name], value, atol=1e-6, rtol=1e-5)


def test_a_sharded_model_that_adds_losses_is_refused():
    model, _ = tiny_backbone("bart")
    attach(model, {**HYDRA, "balance": 0.1}, ["vqa", "gqa"])
    with pytest.raises(RunError, match=r"`training.sharded` must be false for the method 'hydra_lora'"):
        check_shardable(model, {})
