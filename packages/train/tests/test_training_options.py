"""Options of `training` that change how weights move, each compared with what it should be."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from weft.train.engine.averaging import WeightAverage
from weft.train.engine.schedule import make_mixture, total_steps
from weft.train.engine.trainer import trained_components
from weft.train.errors import RecipeError, RunError
from weft.train.output.progress import Progress
from weft.train.recipe.loading import load_recipe
from weft.train.runs.replay import nan_batch
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights

SLACK = {"atol": 2e-6, "rtol": 1e-4}


def assert_close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], msg=lambda text, key=key: f"{key}: {text}", **SLACK)


def moved(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return any(not torch.allclose(one[key], two[key], **SLACK) for key in one)


@pytest.fixture
def exact(values):
    """One task and no dropout (the miniature has none), so that runs that share no random numbers can be compared."""
    values["training"] |= {"mixing": {"unit": "mixed"}, "learning_rate": 1e-3}
    values["tasks"].pop("nlvr")
    return values


def test_half_batches_accumulated_are_whole_batches(exact, finished):
    whole = finished(load_recipe(exact, ["name=whole", "training.batch_size=8"]))
    halves = execute(load_recipe(exact, ["name=halves", "training.batch_size=4", "training.accumulation=2"]))
    assert_close(adapter_weights(whole.folder), adapter_weights(halves.folder))


def test_recomputed_activations_change_nothing(exact, finished):
    kept = finished(load_recipe(exact, ["name=kept"]))
    again = execute(load_recipe(exact, ["name=again", "training.checkpointing=true"]))
    assert_close(adapter_weights(kept.folder), adapter_weights(again.folder))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("bf16", torch.bfloat16),
        pytest.param(
            "fp16",
            torch.float16,
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
def test_half_precision_is_that_of_the_arithmetic_and_not_of_the_weights(
    exact, monkeypatch, precision, dtype
):
    def logged(result):
        state = json.loads(
            (result.folder / "checkpoints" / "checkpoint-6" / "trainer_state.json").read_text()
        )
        return [entry["loss"] for entry in state["log_history"] if "loss" in entry]

    exact["training"] |= {"save_every": 6, "log_every": 1}
    whole = logged(execute(load_recipe(exact)))
    seen, linear = set(), torch.nn.Linear.forward

    def look(self, value):
        found = linear(self, value)
        if torch.is_grad_enabled():
            seen.add(found.dtype)
        return found

    monkeypatch.setattr(torch.nn.Linear, "forward", look)
    half = execute(load_recipe(exact, ["name=half", f"training.precision={precision}"]))
    assert seen == {dtype}
    assert logged(half) == pytest.approx(whole, rel=0.02)
    assert logged(half) != whole
    assert {value.dtype for value in adapter_weights(half.folder).values()} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU does it")
def test_fp16_is_refused_on_a_cpu(values):
    with pytest.raises(
        RunError, match=r"`training.precision` must be 'fp32' or 'bf16' on a CPU, but is 'fp16'"
    ):
        execute(load_recipe(values, ["training.precision=fp16"]))
    assert not Path(values["output"]).exists()


@pytest.mark.parametrize("strategy", ["round_robin", "temperature", "weights"])
def test_tasks_are_mixed_as_the_recipe_says(values, strategy):
    values["tasks"]["nlvr"]["data"]["options"]["size"] = 160
    mixing = {"strategy": strategy, "temperature": 2.0}
    mixing |= {"weights": {"vqa": 3.0, "nlvr": 1.0}} if strategy == "weights" else {}
    recipe = load_recipe(values, [f"training.mixing={json.dumps(mixing)}", "training.steps=400"])
    mixture = make_mixture(recipe, {"vqa": 40, "nlvr": 160})
    drawn = [mixture.batch(step % len(mixture), step // len(mixture))[0][0] for step in range(400)]
    # Rows of 40 to 160 at temperature 2 are drawn as 1 to 2.
    share = {"round_robin": 1 / 2, "temperature": 1 / 3, "weights": 3 / 4}[strategy]
    assert drawn.count("vqa") / 400 == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)
    if strategy == "round_robin":
        assert set(drawn[::2]) != set(drawn[1::2])
    assert execute(load_recipe(values, [f"training.mixing={json.dumps(mixing)}"])).scores


@pytest.mark.slow
def test_a_compiled_model_takes_the_same_steps(exact):
    eager = execute(load_recipe(exact, ["name=eager"]))
    compiled = execute(load_recipe(exact, ["name=compiled", "training.compile=aot_eager"]))
    assert_close(adapter_weights(eager.folder), adapter_weights(compiled.folder))


def test_the_average_is_the_formula(values):
    model = torch.nn.Linear(2, 1, bias=False)
    average, state = WeightAverage(model, 0.5), type("State", (), {"global_step": 0})()
    expected = model.weight.detach().clone()
    for step in range(1, 5):
        with torch.no_grad():
            model.weight.add_(1.0)
        state.global_step = step
        average.on_step_end(None, state, None)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.average["weight"], expected)
    last = model.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, last)


def test_an_averaged_run_saves_the_average_and_resumes_it(values):
    changes = ["training.average=0.9", "training.save_every=2", "training.learning_rate=0.05"]
    plain = execute(load_recipe(values, [*changes[1:], "name=plain"]))
    whole = execute(load_recipe(values, [*changes, "name=whole"]))
    assert moved(adapter_weights(plain.folder), adapter_weights(whole.folder))
    recipe = load_recipe(values, [*changes, "name=broken"])
    broken = execute(recipe)
    for name in ("checkpoint-6",):
        checkpoint = broken.folder / "checkpoints" / name
        (checkpoint / "manifest.json").unlink()
    resumed = execute(recipe, resume=True)
    one, two = adapter_weights(whole.folder), adapter_weights(resumed.folder)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert rescore(whole.folder).scores == whole.scores


def test_training_stops_when_validation_no_longer_improves(values):
    changes = [
        "training.steps=40",
        "training.evaluate_every=2",
        "training.patience=2",
        "training.learning_rate=1e-9",
    ]
    execute(load_recipe(values, [*changes, "training.save_every=2", "training.keep=50", "name=early"]))
    folder = Path(values["output"]) / "early" / "checkpoints"
    steps = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    # The first validation is the best one, since nothing moves; two more without a better one are the end.
    assert steps == [2, 4, 6]
    assert json.loads((folder / "checkpoint-6" / "validated.json").read_text())[1] == 2
    with pytest.raises(RecipeError, match="`patience` needs `evaluate_every`"):
        load_recipe(values, ["training.patience=2"])


def test_weights_at_the_end_of_an_epoch_are_validated_once(values):
    class Counted(Progress):
        def __init__(self):
            self.titles = []

        @contextmanager
        def bar(self, title, total, done=0):
            self.titles.append(title)
            yield lambda done: None

    # Eighty records in batches of eight: the tenth step ends an epoch.
    seen = Counted()
    execute(load_recipe(values, ["training.steps=10", "training.evaluate_every=10"]), progress=seen)
    assert seen.titles.count("validation vqa") == seen.titles.count("validation nlvr") == 1


def test_each_component_has_its_own_rate_and_decay(values, monkeypatch):
    seen = {}
    values["method"]["train_full"] = ["visual_embedding", "norms"]

    def look(self, model=None):
        optimizer = create(self, model)
        components = trained_components(self.model)
        for group in optimizer.param_groups:
            for name, value in self.model.named_parameters():
                if any(value is member for member in group["params"]):
                    seen[name] = (components[name], group["lr"], group["weight_decay"], value.dim())
        return optimizer

    from weft.train.engine.trainer import MultiTaskTrainer

    create = MultiTaskTrainer.create_optimizer
    monkeypatch.setattr(MultiTaskTrainer, "create_optimizer", look)
    rates = ["training.learning_rates={visual_embedding: 0.002}", "training.decay_norms=true"]
    execute(load_recipe(values, [*rates, "training.steps=1", "training.warmup=0"]))
    assert {rate for component, rate, _, _ in seen.values() if component == "visual_embedding"} == {0.002}
    assert {rate for component, rate, _, _ in seen.values() if component != "visual_embedding"} == {0.01}
    for name, (_, _, decay, dimensions) in seen.items():
        assert (decay > 0) == (dimensions > 1 or "bias" not in name), name
    with pytest.raises(RunError, match=r"one is 'visual'.*Did you mean 'visual_embedding'"):
        execute(load_recipe(values, ["training.learning_rates={visual: 0.1}", "name=typo"]))


def test_an_epoch_that_accumulation_does_not_divide_ends_with_a_short_step(values):
    recipe = load_recipe(values, ["training={epochs: 3, batch_size: 8, learning_rate: 0.1, accumulation: 3}"])
    mixture = make_mixture(recipe, {"vqa": 40, "nlvr": 40})
    assert (len(mixture), total_steps(recipe, mixture)) == (10, 12)


def test_a_nan_loss_names_task_record_and_batch(values, monkeypatch):
    from weft.train.objectives.by_reader import ByReader

    whole = ByReader.__call__

    def poisoned(self, model, batch):
        losses = whole(self, model, batch)
        calls.append(1)
        made = batch["batch"]
        seen.append({**made.inputs, "labels": made.labels, "weights": made.weights})
        return losses * float("nan") if len(calls) == 3 else losses

    calls: list[int] = []
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(ByReader, "__call__", poisoned)
    recipe = load_recipe(values, ["training.save_every=1"])
    with pytest.raises(RunError, match=r"8 of 8 of step 3 are NaN or infinite, such as that of (vqa|nlvr)/"):
        execute(recipe)
    written = json.loads((recipe.folder / "nan-batch.json").read_text())
    assert len(written["rows"]) == 8
    batch = nan_batch(recipe.folder)
    assert (batch.step, batch.epoch, len(batch.records)) == (2, 0, 8)
    assert all(loss != loss for loss in batch.losses)
    assert batch.inputs.keys() == seen[2].keys()
    for name, value in seen[2].items():
        torch.testing.assert_close(batch.inputs[name], value, atol=0, rtol=0)
    # No checkpoint holds what the poisoned step made of the weights, and resuming ends well.
    assert sorted(p.name for p in (recipe.folder / "checkpoints").glob("checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-2",
    ]
    assert execute(recipe, resume=True).scores
