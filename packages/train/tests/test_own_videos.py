"""Videos in tables and conversations, trained on and scored by a model that its own processor reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import is_torchvision_available

from weft.core.testing.processed import tiny
from weft.eval.readers import ReaderError
from weft.train.errors import RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.dry_run import dry_run
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing.own_data import short_run

ROWS = 8


@pytest.fixture
def data(realdata: Path, tmp_path: Path) -> Path:
    """Questions about a real clip, in a table and as conversations."""
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(realdata / "pytorch+torchcodec/test/resources/nasa_13013.mp4", root / "clip.mp4")
    asked = {"video": "clip.mp4", "question": "what is seen?", "answers": ["ice"]}
    turns = [{"role": "user", "content": "<video>\nwhat?"}, {"role": "assistant", "content": "ice"}]
    talk = {"messages": turns, "videos": ["clip.mp4"]}
    for name, row in (("asked", asked), ("talks", talk)):
        (root / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * ROWS)
    return root


def recipe_of(model: Path, data: Path, **processor: Any) -> dict[str, Any]:
    def of(name: str, split: str, **options: Any) -> dict[str, Any]:
        return {"name": name, "root": str(data), "train": split, "test": split, "options": options}

    return {
        "name": "films",
        "backbone": {"name": str(model), "processor": processor},
        "method": {"method": "lora", "rank": 2, "sharing": "multiple"},
        "tasks": {
            "vqa": {
                "ask": "{question}",
                "metric": "exact",
                "max_new_tokens": 2,
                "data": of("table", "asked", record="video_qa"),
            },
            "talk": {"max_new_tokens": 2, "data": of("conversations", "talks")},
        },
        "evaluation": {"batch_size": 4},
        **short_run(data.parent / "runs", steps=2),
    }


@pytest.mark.skipif(not is_torchvision_available(), reason="transformers reads videos by torchvision")
@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl"])
def test_questions_and_conversations_about_videos_go_the_whole_way(
    name: str, data: Path, tmp_path: Path
) -> None:
    model = tiny(name).save(tmp_path / "model")
    recipe = load_recipe(recipe_of(model, data, frames=2))
    two = dry_run(recipe).texts[0]
    assert "what" in two
    assert dry_run(load_recipe(recipe_of(model, data, frames=6))).texts[0] != two
    with pytest.raises(
        RunError, match=r"where videos are trained on, but is 'stored', and task 'vqa' shows .*clip"
    ):
        execute(load_recipe(recipe_of(model, data, frames=2), ["training.vision=stored"]))
    result = execute(recipe)
    assert rescore(result.folder).scores == result.scores


def test_videos_and_frames_are_refused_before_training_by_a_model_that_is_shown_none(
    data: Path, tmp_path: Path
) -> None:
    model = tiny("llava").save(tmp_path / "model")
    with pytest.raises(
        RunError, match=r"Task 'vqa' cannot be read on its train split: .* has a video, which"
    ):
        execute(load_recipe(recipe_of(model, data)))
    with pytest.raises(ReaderError, match="`frames` and `fps` must be left out"):
        execute(load_recipe(recipe_of(model, data, fps=1)))
