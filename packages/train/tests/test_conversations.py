"""Conversations of one's own, by command: tried out, trained on beside questions, scored, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from weft.core.testing.processed import tiny
from weft.train.cli import main
from weft.train.testing.curves import adapter_weights
from weft.train.testing.own_data import own_task, short_run, write_own_data

Recipe = dict[str, Any]
QUESTION = [{"role": "user", "content": "<image>x"}, {"role": "assistant", "content": "y"}]


def recipe_of(folder: Path, **talk: Any) -> Recipe:
    """Two tasks in mixed batches, on a tiny chat model: conversations of none to three images, and questions."""
    data = write_own_data(folder / "data")
    model = tiny("qwen2_5_vl").save(folder / "model")
    return {
        "name": "talks",
        "backbone": {"name": str(model)},
        "method": {"method": "lora", "rank": 2, "sharing": "multiple"},
        "tasks": {
            "talk": own_task(data, "conversation", system="Be short.", max_new_tokens=4, **talk),
            "vqa": own_task(data, "image_qa", ask="{question} One word.", max_new_tokens=4),
        },
        "evaluation": {"batch_size": 4},
        **short_run(folder / "runs"),
    }


def said(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    found = capsys.readouterr()
    assert (ended.value.code or 0) == code, found
    return found.err if code else found.out


def written(folder: Path, recipe: Recipe) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return str(path)


def test_conversations_are_tried_out_trained_on_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, recipe_of(tmp_path, learn="all"))
    tried = said(capsys, 0, "train", path, "--dry-run")
    assert "Be short." in tried
    assert "What colour is the" in tried
    assert "<|vision_start|>" in tried
    said(capsys, 0, "train", path)
    run = tmp_path / "runs" / "talks"
    result = json.loads((run / "result.json").read_text())
    assert set(result["scores"]) == {"talk", "vqa", "average"}
    predictions = json.loads((run / "predictions" / "talk.json").read_text())
    assert len(predictions) == 6
    scores = result["scores"]
    said(capsys, 0, "evaluate", str(run))
    assert json.loads((run / "result.json").read_text())["scores"] == scores


def test_streamed_conversations_train_as_listed_ones_and_those_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    recipe = recipe_of(tmp_path)
    root = tmp_path / "data"
    rows = [json.loads(line) for line in (root / "talks.jsonl").read_text().splitlines()]
    for row in rows:
        row["images"] = [{"bytes": (root / name).read_bytes(), "path": None} for name in row["images"]]
    turn = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    features = datasets.Features(messages=[turn], images=[datasets.Image()])
    saved = tmp_path / "saved"
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows, features=features)).save_to_disk(str(saved))
    found = []
    for name, data in {
        "file": {"root": str(root), "options": {"file": "talks.jsonl"}},
        "listed": {"root": str(saved)},
        "streamed": {"root": str(saved), "streaming": True},
    }.items():
        talk = {
            "data": {"name": "conversations", "test": "train", **data},
            "learn": "all",
            "max_new_tokens": 2,
        }
        said(capsys, 0, "train", written(tmp_path, recipe | {"name": name, "tasks": {"talk": talk}}))
        found.append(adapter_weights(tmp_path / "runs" / name))
    one, *others = found
    assert all(torch.equal(value, other[key]) for other in others for key, value in one.items())


def changed(folder: Path, row: int, **values: Any) -> None:
    path = folder / "data" / "talks.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[row] |= values
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


@pytest.mark.parametrize(
    ("values", "talk", "message"),
    [
        ({"images": []}, {}, "talks.jsonl, row 3: must have one `<image>` for each image, but has 2 for 0"),
        (
            {
                "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}],
                "images": [],
            },
            {},
            "talks.jsonl, row 3: turn 2 of `messages` must say something, but is empty",
        ),
        ({}, {"ask": "{text}?"}, "Task 'talk' cannot be read on its train split: `ask` must be left out of"),
        (
            {},
            {"prompt": "talk: "},
            "Task 'talk' cannot be read on its train split: `prompt` must be left out of",
        ),
        (
            {},
            {"metric": "vqa"},
            "`metric` must score records of type 'conversation', but 'vqa' scores 'image_qa'",
        ),
    ],
    ids=["images", "empty answer", "ask", "prompt", "metric"],
)
def test_what_is_wrong_is_said_once(
    values: Recipe, talk: Recipe, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path, **talk)
    changed(tmp_path, 2, **values)
    fault = said(capsys, 2, "train", written(tmp_path, recipe))
    assert fault.startswith("weft: ")
    assert message in fault
    assert not (tmp_path / "runs").exists()


def test_several_turns_are_refused_by_a_model_without_a_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path) | {"backbone": {"name": str(tiny("paligemma").save(tmp_path / "other"))}}
    recipe["tasks"]["talk"].pop("system")
    changed(tmp_path, 0, messages=QUESTION, images=["images/0001.png"])
    fault = said(capsys, 2, "train", written(tmp_path, recipe))
    assert (
        "talk/train-2 has earlier answers. Give a row for each answer, or choose a model with a chat" in fault
    )


def test_a_model_of_wefts_own_takes_no_conversations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path) | {"backbone": {"name": "miniature"}}
    recipe["tasks"] = {"talk": {"data": recipe["tasks"]["talk"]["data"]}}
    fault = said(capsys, 2, "train", written(tmp_path, recipe))
    assert "`tasks.talk.data` must hold questions, not conversations, for a model of weft's own" in fault


def test_the_data_commands_look_at_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_own_data(tmp_path / "data")
    options = ("--split", "train", "--option", "file=talks.jsonl")
    assert "24" in said(capsys, 0, "data", "check", "conversations", str(root), *options)
    sheet = tmp_path / "talks.png"
    said(capsys, 0, "data", "show", "conversations", str(root), *options, "--output", str(sheet))
    assert sheet.stat().st_size > 1000
    (root / "images" / "0001.png").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", "conversations", str(root), *options])
    assert ended.value.code == 2
    assert "absent: " in (found := capsys.readouterr().out)
    assert "0001.png" in found
