"""`weft evaluate` on a few-shot run: the saved heads score as they did when they were fitted."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from weft.core.errors import WeftError
from weft.train.cli import main
from weft.train.errors import RunError
from weft.train.recipe.loading import load_any
from weft.train.runs.few_shot.rescore import rescore_few_shot
from weft.train.runs.few_shot.run import execute_few_shot
from weft.train.testing.few_shot_sets import write_colours

COLOURS = {"crimson": (200, 40, 60), "navy": (30, 40, 120), "olive": (120, 120, 40)}


@pytest.fixture
def values(clip: str, tmp_path: Path) -> dict[str, Any]:
    counts = {"train": 4, "validation": 3, "test": 5}
    root = str(write_colours(tmp_path / "colours", COLOURS, counts))
    return {
        "name": "colours",
        "encoder": {"name": clip},
        "data": {"name": "image_folder", "root": root, "validation": "validation", "num_classes": 3},
        "heads": [
            {"method": "zero_shot"},
            {"method": "tip_adapter", "search_steps": [20, 5]},
            {"method": "xmadapter", "epochs": 2, "search_steps": [5, 5]},
            {"method": "coop", "context_tokens": 2, "epochs": 2},
            {"method": "cocoop", "context_tokens": 2, "epochs": 1},
        ],
        "shots": [1, 2],
        "seeds": [1],
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
        "threads": 1,
    }


def execute(values: dict[str, Any]) -> Any:
    recipe = load_any(values)
    assert recipe is not None
    return execute_few_shot(recipe)


def test_a_run_of_relative_paths_is_scored_again_from_any_folder(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values |= {"output": "runs", "heads": [{"method": "tip_adapter"}], "shots": [1]}
    values["data"]["root"] = "colours"
    monkeypatch.chdir(tmp_path)
    found = execute(values)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    kept = yaml.safe_load((tmp_path / found.folder / "recipe.yaml").read_text())
    assert (kept["data"]["root"], kept["output"]) == (str(tmp_path / "colours"), str(tmp_path / "runs"))
    assert rescore_few_shot(tmp_path / found.folder).text() == found.text()


@pytest.mark.parametrize("selection", ["validation", "none"])
def test_saved_heads_score_as_they_did(values: dict[str, Any], selection: str) -> None:
    values["selection"] = selection
    if selection == "none":
        values["data"] |= {"validation": None}
    run = execute(values)
    again = rescore_few_shot(run.folder)
    assert list(again.cells) == list(run.cells)
    assert again.text() == run.text()


def test_the_command_trains_and_scores_again_on_several_data_sets(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values |= {"heads": values["heads"][1:3], "also": {"again": {"data": values["data"]}}}
    values["name"] = "both"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    for words in (["train", str(path)], ["evaluate", str(tmp_path / "runs" / "both")]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
        printed = capsys.readouterr().out.partition("Plot: ")[0]
        if words[0] == "train":
            trained = printed
    assert "accuracy on average" in printed
    assert printed == trained


def test_heads_of_another_draw_or_of_no_run_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    values |= {"heads": values["heads"][1:2], "shots": [1]}
    run = execute(values)
    weights = run.folder / "heads" / "tip_adapter-K1-seed1" / "head.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(WeftError, match="its hash differs"):
        rescore_few_shot(run.folder)
    for path in (tmp_path / "colours" / "train" / "crimson").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(WeftError, match="is stale"):
        rescore_few_shot(run.folder)
    with pytest.raises(RunError, match="must be the folder of a finished few-shot run"):
        rescore_few_shot(tmp_path)
