import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from weft.data.testing import image_bytes, write_tree
from weft.train.cli import main
from weft.train.errors import RecipeError, RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.runs.sweep import read_axes, run_sweep, sweep_points

started: list[list[str]] = []


@pytest.fixture
def in_process(monkeypatch):
    """Run what would be a process here, which is quicker; the command is what a process would get."""
    started.clear()

    def run(command, **kwargs):
        started.append(command)
        with pytest.raises(SystemExit) as ended:
            main(["train", *command[3:]])
        return SimpleNamespace(returncode=int(ended.value.code or 0))

    # Others, such as `platform`, start processes too: theirs are real.
    monkeypatch.setattr("weft.train.runs.sweep.subprocess", SimpleNamespace(run=run))


@pytest.fixture
def path(values, tmp_path) -> Path:
    values["training"]["steps"] = 2
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def test_every_combination_is_a_run_with_its_own_name_and_label(path):
    axes = read_axes(["training.learning_rate=1e-3,3e-4", "seed=0,1"])
    points = sweep_points(str(path), [], axes)
    names = [point.recipe.name for point in points]
    assert names == [
        "tiny-learning_rate-1e-3-seed-0",
        "tiny-learning_rate-1e-3-seed-1",
        "tiny-learning_rate-3e-4-seed-0",
        "tiny-learning_rate-3e-4-seed-1",
    ]
    assert [point.recipe.training.learning_rate for point in points] == [1e-3, 1e-3, 3e-4, 3e-4]
    # Seeds of one combination have one label, so that `weft compare` averages over them.
    assert [point.recipe.label for point in points] == ["tiny, learning_rate 1e-3"] * 2 + [
        "tiny, learning_rate 3e-4"
    ] * 2


@pytest.mark.parametrize("entry", ["seed", "seed=", "=1", "seed=["])
def test_an_axis_needs_a_key_and_values(entry):
    with pytest.raises(RecipeError, match="`--grid` must be"):
        read_axes([entry])


def test_a_wrong_value_is_found_before_any_run(path, in_process):
    with pytest.raises(RecipeError, match=r"training\.batch_size"):
        run_sweep(str(path), [], {"training.batch_size": [4, 0]})
    with pytest.raises(RecipeError, match=r"'tiny-steps-1' comes twice"):
        sweep_points(str(path), [], {"training.steps": [1, 1]})
    assert not started


def test_a_sweep_keeps_finished_runs_and_resumes_begun_ones(path, values, in_process):
    axes = {"seed": [0, 1, 2]}
    points = sweep_points(str(path), ["training.save_every=1"], axes)
    execute(points[0].recipe)
    begun = execute(points[1].recipe).folder
    (begun / "result.json").unlink()
    rows = run_sweep(str(path), ["training.save_every=1"], axes)
    assert [row["values"] for row in rows] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert [command[-1] == "--resume" for command in started] == [True, False]
    assert all(
        row["scores"]
        == json.loads((Path(values["output"]) / row["name"] / "result.json").read_text())["scores"]
        for row in rows
    )
    started.clear()
    assert run_sweep(str(path), ["training.save_every=1"], axes) == rows
    assert not started


def test_a_run_that_fails_does_not_stop_the_rest(path, in_process):
    with pytest.raises(RunError, match=r"1 of 2 did not.*tiny-batch_size-64\.log"):
        run_sweep(str(path), [], {"training.batch_size": [64, 8]})
    assert (Path(load_recipe(str(path)).output) / "tiny-batch_size-8" / "result.json").is_file()


def test_the_runs_of_a_sweep_are_children_of_one(path, values, in_process, store):
    mlflow = pytest.importorskip("mlflow", reason="weft-eval brings mlflow")
    tracking = ["tracking.enabled=true", "tracking.experiment=sweeps", f"tracking.store={store}"]
    run_sweep(str(path), tracking, {"seed": [0, 1]})
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == 2
    assert parent.data.params == {"seed": "0, 1"}


@pytest.mark.slow
def test_the_command_runs_processes_and_prints_a_table(path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(path), "--grid", "training.learning_rate=1e-3,1e-2", "--seeds", "0"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "learning_rate" in printed
    assert "1e-3" in printed


def test_a_result_counts_only_for_the_recipe_and_the_data_that_made_it(path, in_process, tmp_path, values):
    rows = [
        {"id": str(k), "image": "a.png", "question": "what color", "answers": ["red"] * 10} for k in range(8)
    ]
    write_tree(tmp_path / "own", {"a.png": image_bytes()})
    for split in ("train", "test"):
        (tmp_path / "own" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    data = {"name": "table", "root": str(tmp_path / "own"), "options": {"record": "image_qa"}}
    values["tasks"] = {"vqa": {"prompt": "vqa: ", "metric": "vqa", "max_new_tokens": 3, "data": data}}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    axes = {"seed": [0]}
    first = run_sweep(str(path), [], axes)
    assert run_sweep(str(path), [], axes) == first
    assert len(started) == 1
    with pytest.raises(
        RunError, match=r"is of another: training\.steps was 2 and is 3\. Take name=.*--overwrite"
    ):
        run_sweep(str(path), ["training.steps=3"], axes)
    rows[0]["answers"] = ["blue"] * 10
    (tmp_path / "own" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(
        RunError, match=r"is of another: data\.vqa\.train was 8 records, sha256 \w+ and is 8 records"
    ):
        run_sweep(str(path), [], axes)
    assert len(started) == 1


def test_a_run_that_was_trained_and_not_scored_is_gone_on_with(path, in_process):
    point = sweep_points(str(path), [], {"seed": [0]})[0]
    execute(point.recipe)
    (point.recipe.folder / "result.json").unlink()
    shutil.rmtree(point.recipe.folder / "checkpoints", ignore_errors=True)
    adapter = (point.recipe.folder / "adapter" / "adapter_model.safetensors").read_bytes()
    run_sweep(str(path), [], {"seed": [0]})
    assert started[0][-1] == "--resume"
    assert (point.recipe.folder / "adapter" / "adapter_model.safetensors").read_bytes() == adapter


def test_overwrite_makes_anew_only_the_runs_that_another_recipe_made(path, in_process, values):
    run_sweep(str(path), [], {"seed": [0]})
    rows = run_sweep(str(path), ["training.steps=3"], {"seed": [0, 1]}, overwrite=True)
    assert [command[-1] for command in started] == ["--traceback", "--overwrite", "--traceback"]
    runs = Path(values["output"])
    assert all(
        yaml.safe_load((runs / row["name"] / "recipe.yaml").read_text())["training"]["steps"] == 3
        for row in rows
    )
    started.clear()
    assert run_sweep(str(path), ["training.steps=3"], {"seed": [0, 1]}, overwrite=True) == rows
    assert not started, "what matches is kept"
    assert not list(runs.glob(".*removed*"))


def test_overwrite_removes_no_folder_that_weft_did_not_make(path, in_process):
    point = sweep_points(str(path), [], {"seed": [0]})[0]
    execute(point.recipe)
    (point.recipe.folder / ".weft-run").unlink()
    with pytest.raises(RunError, match=r"to be removed, but .*seed-0 has no \.weft-run"):
        run_sweep(str(path), ["training.steps=3"], {"seed": [0]}, overwrite=True)
    assert (point.recipe.folder / "result.json").is_file()
    assert not started


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(path, in_process):
    point = sweep_points(str(path), ["training.save_every=1"], {"seed": [0]})[0]
    folder = execute(point.recipe).folder
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "adapter")
    with pytest.raises(RunError, match=r"is of another: training\.learning_rate was 0\.01 and is 0\.02"):
        run_sweep(str(path), ["training.save_every=1", "training.learning_rate=0.02"], {"seed": [0]})
    assert not started
