"""Few-shot runs whose heads adapt the encoder: fitted, scored, kept and scored again like all others."""

from pathlib import Path
from typing import Any

import pytest

from weft.core.few_shot import ImageHead, heads, load_head
from weft.train.runs.few_shot.features import _PICTURES
from weft.train.runs.few_shot.plan import plan_few_shot
from weft.train.runs.few_shot.rescore import rescore_few_shot
from weft.train.runs.few_shot.run import execute_few_shot
from weft.train.testing.few_shot_sets import few_shot_recipe, write_colours

COLOURS = {"crimson": (200, 40, 60), "navy": (30, 40, 120), "olive": (120, 120, 40), "teal": (0, 130, 130)}
QUICK: dict[str, dict[str, Any]] = {
    "clip_lora": {"steps_per_shot": 20, "learning_rate": 0.02},
    "mma": {"epochs": 40, "scale": 0.5, "optimizer": "adamw", "learning_rate": 0.01},
    "mmrl": {"epochs": 40, "token_size": 16, "learning_rate": 0.02, "penalty": 0.0},
    "two_sfs": {"steps_per_shot": 40, "learning_rate": 0.02},
    "uniadapter": {"steps_per_shot": 20, "learning_rate": 0.02, "bottleneck_size": 4, "scale": 1.0},
    "prolip": {"epochs": 40, "learning_rate": 0.02, "penalty": 0},
}
METHODS = [name for name in heads() if issubclass(heads()[name].head, ImageHead)]


@pytest.fixture
def values(clip: str, tmp_path: Path) -> dict[str, Any]:
    counts = {"train": 5, "validation": 3, "test": 6}
    root = str(write_colours(tmp_path / "colours", COLOURS, counts, width=20))
    return {
        "name": "colours",
        "encoder": {"name": clip, "width": 16},
        "data": {"name": "image_folder", "root": root, "validation": "validation", "num_classes": 4},
        "heads": [
            {"method": "zero_shot"},
            *({"method": method, **QUICK[method]} for method in METHODS),
            {"method": "tip_adapter", "search_steps": [5, 5]},
        ],
        "shots": [2],
        "seeds": [1],
        "views": {"count": 2},
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
        "threads": 1,
    }


def test_heads_that_adapt_the_encoder_run_beside_those_that_do_not(values: dict[str, Any]) -> None:
    asked = few_shot_recipe(values)
    run = execute_few_shot(asked)
    scores = {cell.head: cell.accuracies["test"] for cell in run.cells}
    assert all(scores[method] >= scores["zero_shot"] + 20 for method in METHODS), scores
    alone = execute_few_shot(few_shot_recipe(values, name="alone", heads=values["heads"][-1:]))
    assert alone.cells[0].accuracies["test"] == scores["tip_adapter"]

    assert rescore_few_shot(run.folder).text() == run.text()
    planned = plan_few_shot(asked)
    counted = {cell.head: {cell.shots: cell.trainable} for cell in run.cells}
    assert planned.trainable == counted
    assert planned.uncounted == ()


def test_new_classes_are_scored_through_the_adapted_encoder(values: dict[str, Any]) -> None:
    run = execute_few_shot(few_shot_recipe(values, protocol="base_to_new", heads=values["heads"][:-1]))
    for cell in run.cells:
        assert set(cell.accuracies) == {"base", "new", "harmonic mean"}
    assert {cell.head: cell.accuracies["base"] for cell in run.cells}["clip_lora"] > 60
    for method in METHODS:
        assert load_head(run.folder / "heads" / f"{method}-K2-seed1").num_classes == 2
    assert rescore_few_shot(run.folder).text() == run.text()


def test_a_plan_says_which_heads_it_cannot_count(values: dict[str, Any]) -> None:
    away = {"name": "nobody/nothing-of-this-name", "width": 16}
    planned = plan_few_shot(few_shot_recipe(values, encoder=away))
    assert planned.uncounted == tuple(sorted(METHODS))
    assert set(planned.trainable) == {"zero_shot", "tip_adapter"}
    assert "not counted, because their encoder is not here: clip_lora" in str(planned)


def test_what_stays_in_memory_is_bounded() -> None:
    assert _PICTURES * 3 * 224 * 224 * 4 < 2**30
