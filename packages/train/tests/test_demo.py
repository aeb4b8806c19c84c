from pathlib import Path

import pytest

from weft.train.errors import RunError
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_recipe
from weft.train.runs.demo import METHODS, blind_rows, run_demo


def test_every_method_of_the_table_has_a_recipe():
    assert {f"demo/{name}" for name in METHODS} <= set(built_in_recipes())


def test_runs_of_the_demo_differ_only_in_method_and_rate():
    recipes = [load_recipe(f"demo/{name}") for name in METHODS]
    ignored = {"name", "label", "method", "training", "blank_images", "control"}
    alike = [
        r.model_dump(exclude=ignored) | {"t": r.training.model_dump(exclude={"learning_rate"})}
        for r in recipes
    ]
    assert all(values == alike[0] for values in alike)


def test_blind_baselines_score_as_chance_does():
    recipe = load_recipe("demo/single_adapter")
    tasks = load_tasks(recipe, ("train", "test"))
    always, template = blind_rows(tasks, recipe)
    assert always["scores"]["nlvr"] == 50.0
    assert template["scores"]["nlvr"] == 50.0
    assert always["scores"]["vqa"] < template["scores"]["vqa"] < 40.0
    assert always["scores"]["gqa"] < template["scores"]["gqa"] < 40.0
    assert all(len(data["test"]) >= 1_000 for data in tasks.values())


def test_misspelt_methods_and_foreign_folders_are_refused(tmp_path: Path):
    with pytest.raises(RunError, match="Did you mean 'single_adapter'"):
        run_demo(tmp_path / "new", only=["single_adaptor"])
    assert not (tmp_path / "new").exists()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="holds other files"):
        run_demo(tmp_path, only=["single_adapter"])
    assert (tmp_path / "thesis.tex").exists()


def test_the_demo_prints_a_table_and_the_way_to_the_ui(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    changes = [
        f"tasks.{name}.data.{role}.size=24"
        for name in ("vqa", "gqa", "nlvr", "caption")
        for role in ("options", "test_options")
    ]
    changes += [
        f"tasks.{name}.data.{role}.num_scenes=40"
        for name in ("vqa", "gqa", "nlvr", "caption")
        for role in ("options", "test_options")
    ]
    comparison = run_demo(
        tmp_path / "demo",
        steps=2,
        only=["frozen", "single_adapter", "image_zeroed"],
        jobs=1,
        changes=[*changes, "training.batch_size=8"],
    )
    printed = capsys.readouterr().out
    assert "single adapter" in printed
    assert "blind majority per template" in printed
    assert "mlflow ui --backend-store-uri" in printed
    assert "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning" in printed
    assert (tmp_path / "demo" / "pareto.png").stat().st_size > 10_000
    assert (tmp_path / "demo" / "single_adapter" / "adapter" / "weft_config.json").exists()
    assert load_recipe(tmp_path / "demo" / "image_zeroed" / "recipe.yaml").blank_images
    assert comparison.entry("image_zeroed").control
    assert len(comparison.entries) == 5
