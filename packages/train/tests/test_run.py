import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from weft.core import load_adapter
from weft.train.backbones.loading import load_backbone, planned_model
from weft.train.errors import RecipeError, RunError
from weft.train.output.progress import Advance, Progress
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.sections import BackboneSection
from weft.train.runs.dry_run import dry_run
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights
from weft.train.testing.power_cut import DiesAt, Killed


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_also_when_the_run_is_killed_and_resumed(values, finished, workers):
    values["training"] |= {"vision": "trained", "shift": 1, "save_every": 2}
    whole = finished(load_recipe(values, ["name=whole"]))
    broken = load_recipe(values, ["name=broken", f"training.workers={workers}"])
    with pytest.raises(Killed):
        execute(broken, progress=DiesAt(3))
    resumed = execute(broken, resume=True)
    assert_equal(adapter_weights(whole.folder), adapter_weights(resumed.folder))


def test_workers_that_inherit_nothing_change_nothing(values, finished):
    """As they are started on macOS and Windows, and wherever Python no longer forks."""
    values["training"] |= {"vision": "trained", "shift": 1, "save_every": 2}
    alone = finished(load_recipe(values, ["name=alone"]))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = execute(load_recipe(values, ["name=spawned", "training.workers=1"]))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert_equal(adapter_weights(alone.folder), adapter_weights(spawned.folder))


def test_a_run_leaves_scores_predictions_plan_and_adapter(values):
    result = execute(load_recipe(values))
    assert set(result.scores) == {"vqa", "nlvr", "average"}
    assert result.scores["average"] == pytest.approx((result.scores["vqa"] + result.scores["nlvr"]) / 2)
    saved = json.loads((result.folder / "result.json").read_text())
    assert saved["scores"] == result.scores
    predictions = json.loads((result.folder / "predictions" / "nlvr.json").read_text())
    assert len(predictions) == 12
    assert set(predictions.values()) <= {"true", "false"}
    assert json.loads((result.folder / "plan.json").read_text())["trainable_parameters"] == result.trainable
    assert sorted(
        {key.rpartition(".")[2] for key in adapter_weights(result.folder) if key.startswith("bottleneck")}
    ) == [
        "nlvr",
        "vqa",
    ]


def test_a_second_run_is_the_same_to_the_last_bit(values, finished):
    first = finished(load_recipe(values))
    second = execute(load_recipe(values, ["name=again"]))
    assert first.scores == second.scores
    assert_equal(adapter_weights(first.folder), adapter_weights(second.folder))


@pytest.mark.parametrize("unit", ["homogeneous", "mixed"])
def test_a_killed_run_resumes_to_the_same_weights(values, unit):
    changes = ["training.save_every=2", f"training.mixing.unit={unit}"]
    values["tasks"]["gqa"] = values["tasks"].pop("nlvr")
    values["tasks"]["gqa"]["data"]["options"] |= {"task": "gqa", "num_scenes": 200}
    values["tasks"]["gqa"]["data"]["test_options"] |= {"num_scenes": 200}
    values["tasks"]["gqa"]["metric"] = "gqa"
    whole = execute(load_recipe(values, [*changes, "name=whole"]))
    broken = load_recipe(values, [*changes, "name=broken"])
    with pytest.raises(Killed):
        execute(broken, progress=DiesAt(5))
    resumed = execute(broken, resume=True)
    assert_equal(adapter_weights(whole.folder), adapter_weights(resumed.folder))
    assert whole.scores == resumed.scores


@pytest.mark.parametrize(
    "early", [[], ["training.evaluate_every=1", "training.patience=1", "training.learning_rate=1e-9"]]
)
def test_a_run_killed_while_it_is_scored_takes_no_step_more(values, early):
    recipe = load_recipe(values, ["training.save_every=1", "training.keep=50", *early])
    whole = execute(recipe)
    before = adapter_weights(whole.folder)
    steps = {path.name for path in (whole.folder / "checkpoints").glob("checkpoint-*")}
    (whole.folder / "result.json").unlink()
    again = execute(recipe, resume=True)
    assert {path.name for path in (whole.folder / "checkpoints").glob("checkpoint-*")} == steps
    assert_equal(before, adapter_weights(again.folder))
    assert again.scores == whole.scores


def test_resume_wants_the_same_recipe_and_a_checkpoint(values, finished):
    recipe = load_recipe(values, ["training.save_every=2"])
    with pytest.raises(RunError, match="no checkpoint at all"):
        execute(recipe, resume=True)
    finished(recipe)
    with pytest.raises(RunError, match="needs the recipe that"):
        execute(load_recipe(values, ["training.save_every=3"]), resume=True)


def test_an_earlier_run_is_not_overwritten_unasked(values, finished):
    finished(load_recipe(values))
    with pytest.raises(RunError, match="Use --resume"):
        execute(load_recipe(values))
    execute(load_recipe(values), overwrite=True)


def test_rescoring_a_folder_gives_the_scores_of_the_run(values, finished):
    result = finished(load_recipe(values))
    again = rescore(result.folder)
    assert again.scores == result.scores
    assert (again.trainable, again.total) == (result.trainable, result.total)
    with pytest.raises(RunError, match="folder of a finished run"):
        rescore(result.folder / "adapter")


def test_the_best_validated_weights_are_the_result(values):
    recipe = load_recipe(values, ["training.evaluate_every=2", "training.learning_rate=0.5"])
    result = execute(recipe)
    best = load_file(result.folder / "checkpoints" / "best" / "adapter_model.safetensors")
    assert_equal(best, adapter_weights(result.folder))
    score = float((result.folder / "checkpoints" / "best" / "score").read_text())
    assert rescore(result.folder, role="validation").scores["average"] == score


def test_a_trained_tower_reads_pixels_and_changes(values):
    values["method"]["train_full"] = ["visual_embedding", "vision"]
    with pytest.raises(RunError, match="must be 'trained' when the method trains the vision tower"):
        execute(load_recipe(values))
    result = execute(load_recipe(values, ["training.vision=trained", "name=pixels", "training.steps=2"]))
    assert any(
        key.startswith("full.vision") or "vision_tower" in key for key in adapter_weights(result.folder)
    )


def test_zeroed_images_make_every_image_look_alike(values):
    result = execute(load_recipe(values, ["blank_images=true"]))
    predictions = json.loads((result.folder / "predictions" / "vqa.json").read_text())
    questions = {r.id: r.question for r in load_tasks(load_recipe(values), ("test",))["vqa"]["test"]}
    by_question: dict[str, set[str]] = {}
    for name, answer in predictions.items():
        by_question.setdefault(questions[name], set()).add(answer)
    assert all(len(answers) == 1 for answers in by_question.values())


def test_a_run_is_tracked_with_metrics_per_step_and_files(values, store, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="weft-eval brings mlflow")
    values["tracking"] = {"enabled": True, "experiment": "tests", "store": str(store)}
    result = execute(load_recipe(values))
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/average"] == result.scores["average"]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [2, 4, 6]
    found = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert found >= {"adapter", "plan.json", "recipe.yaml", "inspection.html", "predictions"}
    page = Path(client.download_artifacts(run.info.run_id, "inspection.html", str(tmp_path))).read_text()
    assert "Worst examples" in page
    assert "data:image/png;base64," in page


def test_the_tracked_model_answers_as_the_run_did(values, store):
    mlflow = pytest.importorskip("mlflow", reason="weft-eval brings mlflow")
    import pandas

    values["tracking"] = {"enabled": True, "experiment": "tests", "store": str(store)}
    recipe = load_recipe(values)
    result = execute(recipe)
    model = next((store / "artifacts").rglob("MLmodel")).parent
    served = mlflow.pyfunc.load_model(str(model))
    assert sum(path.stat().st_size for path in model.rglob("*")) < 2**20  # the backbone is not in it
    tasks = load_tasks(recipe, ("test",))
    for name, text, media in (("vqa", "question", "image"), ("nlvr", "sentence", "images")):
        records = tasks[name]["test"]
        columns = {"question": [getattr(record, text) for record in records]}
        refs = [getattr(record, media) for record in records]
        pairs = [ref if isinstance(ref, tuple) else (ref,) for ref in refs]
        for column, images in zip(("image", "second_image"), zip(*pairs, strict=True), strict=False):
            columns[column] = [ref.read() for ref in images]
        said = served.predict(pandas.DataFrame(columns), {"task": name})
        kept = json.loads((result.folder / "predictions" / f"{name}.json").read_text())
        assert said == [kept[record.id] for record in records]


def test_batches_larger_than_the_data_are_refused(values):
    with pytest.raises(RunError, match=r"at most its training records \(40\), but is 64"):
        execute(load_recipe(values, ["training.batch_size=64"]))


def test_an_empty_split_is_refused(values):
    with pytest.raises(RunError, match="must hold records, but is empty"):
        execute(load_recipe(values, ["tasks.vqa.data.sizes.test=0"]))


def test_unknown_metrics_and_missing_validation_are_found_first(values):
    values["tasks"]["vqa"]["metric"] = "vqaa"
    values["tasks"]["nlvr"]["data"]["validation"] = None
    with pytest.raises(RecipeError, match=r"unknown metric 'vqaa'.*\n.*needs a validation split"):
        execute(load_recipe(values, ["training.evaluate_every=2"]))


def test_an_output_that_cannot_be_written_is_refused(values, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="must be a folder that can be written"):
        execute(load_recipe(values, [f"output={tmp_path / 'file'}"]))


def test_a_backbone_that_is_nowhere_is_named(tmp_path):
    section = BackboneSection(name=str(tmp_path / "nowhere"))
    with pytest.raises(RunError, match="nowhere"):
        load_backbone(section)
    with pytest.raises(RunError, match="nowhere"):
        planned_model(section)


def test_an_adapter_loads_into_a_fresh_backbone(values, finished):
    result = finished(load_recipe(values))
    model = load_adapter(load_backbone(BackboneSection(name="miniature")).model, result.folder / "adapter")
    assert model.weft.tasks == ("vqa", "nlvr")


def test_what_was_trained_is_kept_when_scoring_fails_and_is_scored_later(values, monkeypatch):
    whole = execute(load_recipe(values, ["name=whole"]))
    broken = load_recipe(values, ["name=broken"])
    with monkeypatch.context() as patch:
        patch.setattr("weft.train.runs.run.evaluate_tasks", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execute(broken)
    assert_equal(adapter_weights(broken.folder), adapter_weights(whole.folder))
    assert not (broken.folder / "result.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr("weft.train.runs.run.train_session", lambda *args: pytest.fail("it is trained already"))
        assert execute(broken, auto_resume=True).scores == whole.scores
    assert (broken.folder / "result.json").is_file()


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_legs(values, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("weft.train.engine.clock.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(Progress):
        def __init__(self, dies_at: int | None = None) -> None:
            self.dies_at = dies_at

        @contextmanager
        def bar(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
            def advance(done: int) -> None:
                now[0] += 100.0 if title.startswith("train") else 0.0
                if title.startswith("train") and done == self.dies_at:
                    raise Killed

            yield advance

    recipe = load_recipe(values, ["training.save_every=2"])
    with pytest.raises(Killed):
        execute(recipe, progress=Slow(dies_at=4))
    now[0] += 5000.0
    assert execute(recipe, resume=True, progress=Slow()).seconds == pytest.approx(600.0)


def question_file(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A recipe's data: questions of one's own about one picture."""
    Image.new("RGB", (16, 24), "red").save(folder / "a.png")
    for split in ("train", "test"):
        lines = [
            {"id": str(k), "image": "a.png", "question": f"what {k}?", "answers": ["red"]} for k in range(8)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*lines, *rows]))
    return {"name": "table", "root": str(folder), "options": {"record": "image_qa"}}


def test_questions_of_ones_own_with_one_answer_train_and_are_scored_by_exact(values, tmp_path):
    data = question_file(tmp_path, [])
    values["tasks"] = {"own": {"max_new_tokens": 3, "data": data}}
    result = execute(load_recipe(values))
    assert result.reports["own"]["metric"] == "exact_accuracy"
    values["tasks"]["own"]["metric"] = "vqa"
    with pytest.raises(
        RunError, match=r"'own' cannot be scored on its test split\. 8 of 8 records do not fit"
    ):
        execute(load_recipe(values, ["name=other"]))
    assert not (result.folder.parent / "other").exists()


@pytest.mark.parametrize(
    ("answers", "message"), [([], "1 of 9 have none"), ([" "], "1 of 9 have none or an empty one")]
)
def test_one_record_that_cannot_be_scored_stops_a_run_before_it_trains(values, tmp_path, answers, message):
    odd = {"id": "odd", "image": "a.png", "question": "?", "answers": answers}
    values["tasks"] = {"own": {"data": question_file(tmp_path, [odd])}}
    recipe = load_recipe(values)
    with pytest.raises(RunError, match=rf"{message}.*'odd'"):
        execute(recipe)
    with pytest.raises(RunError, match=rf"{message}.*'odd'"):
        dry_run(recipe)
    assert not recipe.folder.exists()
