"""Options of official metrics on the command line, and scores by the metric that published rows come from."""

import json
from pathlib import Path

import pytest
import yaml

from weft.eval.metrics.registry import METRICS
from weft.train.cli import main
from weft.train.errors import RecipeError
from weft.train.preflight.tasks import check_recipe
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.published import scored_alike


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.fixture
def files(tmp_path):
    types = {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"}
    shared = {"answer": "yes", "isBalanced": True, "types": types, "groups": {"global": None}}
    gold = {"1": {**shared, "entailed": ["2", "3"]}, "2": {**shared, "isBalanced": False}}
    said = [{"questionId": key, "prediction": "yes"} for key in gold]
    choices = {"1": {"valid": ["yes", "no"], "plausible": ["no"]}}
    for name, value in {"gold": gold, "said": said, "choices": choices}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return tmp_path


def score(files, task, *more):
    given = ("--predictions", str(files / "said.json"), "--gold", str(files / "gold.json"))
    return run("evaluate", *given, "--task", task, *more)


def test_consistency_and_choices_of_gqa_have_switches(files, capsys):
    assert score(files, "gqa") == 0
    assert (
        "consistency: not available: switched off; `consistency` 'known' or 'all'" in capsys.readouterr().out
    )
    assert score(files, "gqa", "--consistency", "known", "--choices", str(files / "choices.json")) == 0
    printed = capsys.readouterr().out
    assert "consistency: 100.0000 percent" in printed
    assert "validity: 100.0000 percent" in printed
    assert "plausibility: 0.0000 percent" in printed
    assert "consistency leaves out 1 entailed questions" in printed


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        ("gqa", ("--consistency", "most"), "`--consistency` must be one of off, known, all, but is 'most'"),
        (
            "vqa",
            ("--consistency", "all"),
            "`--consistency` must be left out unless `--task` is gqa, but the task",
        ),
        (
            "gqa",
            ("--choices", "none.json"),
            "`--choices` must be GQA's choices file, but none.json cannot be read",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(files, capsys, task, words, message):
    assert score(files, task, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_run_is_also_scored_as_the_published_rows_are(values, tmp_path, capsys):
    values["tasks"]["vqa"]["published_metric"] = "vqa_vl_adapter"
    values["published"] = "vl_adapter_image_bart"
    values["label"] = "single adapter"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    assert run("train", str(path), "training.steps=1") == 0
    result = json.loads((Path(values["output"]) / "tiny" / "result.json").read_text(encoding="utf-8"))
    scores = result["reports"]["vqa"]["scores"]
    assert result["scores"]["vqa"] == scores["accuracy"]
    line = f"vqa by vqa_vl_adapter, which published rows come from: {scores['vqa_vl_adapter']:.2f} (this run)"
    printed = " ".join(capsys.readouterr().out.split())
    assert "Published: " in printed
    assert line in printed
    assert scored_alike(load_recipe(path), result["reports"]) == [line]
    values["tasks"]["vqa"]["published_metric"] = "vqa_vl_adaptr"
    with pytest.raises(RecipeError, match=r"tasks.vqa.published_metric: unknown metric .* 'vqa_vl_adapter'"):
        check_recipe(load_recipe(values))


def test_the_image_recipes_of_vl_adapter_name_the_evaluator_of_their_published_rows():
    names = [name for name in built_in_recipes() if name.startswith("vl_adapter/image/")]
    assert names
    assert "vqa_vl_adapter" in METRICS
    for name in names:
        task = load_recipe(name).tasks["vqa"]
        assert (task.metric, task.published_metric) == ("vqa", "vqa_vl_adapter")
