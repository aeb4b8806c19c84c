"""Arithmetic with tasks: sums, means and negations of what tasks add."""

import pytest
import torch

from weft.core import combine_tasks
from weft.core.errors import AttachError, ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted

TASKS = ["vqa", "gqa"]
LORA = {"method": "lora", "rank": 3, "alpha": 6, "linears": ["query", "down"], "sharing": "multiple"}


def change(model, task, x):
    """What one site adds for a task."""
    module = model.model.encoder.layers[1].fc2
    with torch.no_grad(), model.disable_adapter():
        plain = module(x)
    with torch.no_grad(), model.route(task=task):
        return module(x) - plain


def built(method):
    model, _ = adapted(method, "bart", TASKS, noise=0.2)
    return model, torch.randn(2, 3, model.model.encoder.layers[1].fc2.in_features)


@pytest.mark.parametrize(
    "sharing", ["half", {"preset": "half", "shared": "down"}], ids=["up shared", "down shared"]
)
@pytest.mark.parametrize("weights", [{"vqa": 0.5, "gqa": 0.5}, {"vqa": 1, "gqa": 1}, {"vqa": -1}], ids=str)
def test_half_shared_lora_is_linear(sharing, weights):
    model, x = built({**LORA, "sharing": sharing})
    error = combine_tasks(model, "new", weights)
    assert error == 0
    expected = sum(factor * change(model, task, x) for task, factor in weights.items())
    torch.testing.assert_close(change(model, "new", x), expected, atol=1e-5, rtol=1e-5)


def test_a_negation_fits_the_rank_exactly():
    model, x = built(LORA)
    assert combine_tasks(model, "new", {"gqa": -2}) < 1e-6
    torch.testing.assert_close(change(model, "new", x), -2 * change(model, "gqa", x), atol=1e-5, rtol=1e-5)


def test_the_error_of_a_sum_beyond_the_rank_is_that_of_the_best_matrix():
    model, _ = built(LORA)
    error = combine_tasks(model, "new", {"vqa": 1, "gqa": 1})
    worst = 0.0
    for unit in model.weft.plan.units:
        banks = {name: model.weft.banks_by_key[key] for name, key in unit.banks.items()}
        products = {
            task: (
                banks["down.weight"].slot_of(task).double() @ banks["up.weight"].slot_of(task).double()
            ).detach()
            for task in (*TASKS, "new")
        }
        total, new = products["vqa"] + products["gqa"], products["new"]
        values = torch.linalg.svdvals(total)
        best = float(values[3:].norm() / values.norm())
        found = float((total - new).norm() / total.norm())
        assert found == pytest.approx(best, rel=1e-4)
        worst = max(worst, best)
    assert error == pytest.approx(worst, rel=1e-4)
    assert error > 0.01


def test_ia3_adds_what_differs_from_one():
    model, _ = built({"method": "ia3", "sharing": "multiple"})
    assert combine_tasks(model, "new", {"vqa": 1, "gqa": -0.5}) == 0
    bank = model.weft.banks_by_key["ia3.text.encoder.0.ffn.down.scale"]
    expected = 1 + (bank.slot_of("vqa") - 1) - 0.5 * (bank.slot_of("gqa") - 1)
    torch.testing.assert_close(bank.slot_of("new"), expected)


def test_other_units_are_averaged_only():
    model, _ = built({"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"})
    with pytest.raises(
        ConfigError, match="`weights` must sum to 1, because Bottleneck is not linear in its slots"
    ):
        combine_tasks(model, "new", {"vqa": 1, "gqa": 1})
    assert model.weft.tasks == ("vqa", "gqa")
    combine_tasks(model, "new", {"vqa": 0.25, "gqa": 0.75})
    for bank in model.weft.banks_by_key.values():
        expected = 0.25 * bank.slot_of("vqa") + 0.75 * bank.slot_of("gqa")
        torch.testing.assert_close(bank.slot_of("new"), expected)


def test_tasks_that_share_everything_have_nothing_to_add():
    model, _ = built({**LORA, "sharing": "single"})
    with pytest.raises(ConfigError, match="`sharing` must give tasks slots of their own"):
        combine_tasks(model, "new", {"vqa": 1})


@pytest.mark.parametrize(
    ("task", "weights", "message"),
    [
        ("new", {}, "`weights` must name a task, but is empty"),
        ("new", {"vqaa": 1}, r"`weights` must be .* Did you mean 'vqa'"),
        ("vqa", {"vqa": 1}, "`tasks` must be unique, but 'vqa' occurs twice"),
    ],
    ids=["none", "unknown", "taken"],
)
def test_wrong_sums_are_refused(task, weights, message):
    model, _ = built(LORA)
    with pytest.raises(ConfigError, match=message):
        combine_tasks(model, task, weights)
    plain, _ = tiny_backbone("bart")
    with pytest.raises(AttachError, match="must have units, but it has none"):
        combine_tasks(plain, task, weights)
