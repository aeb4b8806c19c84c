"""Faults of recipe, data or folder: one message and exit code 2, before a model is loaded or a file written."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.train.cli import main
from weft.train.errors import RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute

SIZE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
DUAL = {
    "tokenizer": "miniature",
    "image_size": 16,
    "config": {
        "model_type": "weft_dual_encoder",
        "projection_size": 8,
        "text_config": {"model_type": "clip_text_model", "max_position_embeddings": 40, **SIZE},
        "vision_config": {"model_type": "clip_vision_model", "image_size": 16, "patch_size": 8, **SIZE},
    },
}
FAULTS = {
    "typos, all at once": (
        [
            "trainig.steps=3",
            "training.lerning_rate=0.1",
            "tasks.vqa.data.tst=test",
            "method.botleneck_size=4",
        ],
        "has 4 faults:|trainig: unknown key. Did you mean 'training'|training.lerning_rate: unknown key. Did you mean "
        "'learning_rate'|tasks.vqa.data.tst: unknown key. Did you mean 'test'|Did you mean 'bottleneck_size'",
    ),
    "empty data set": (
        ["tasks.vqa.data.sizes.train=0"],
        "The split 'train' of data set 'scenes' (task 'vqa') must hold records, but is empty.|Check `options` and",
    ),
    "batch larger than data": (
        ["training.batch_size=64"],
        "`batch_size` of task 'vqa' must be at most its training records (40), but is 64.|Lower tasks.vqa.batch_size",
    ),
    "batch of a task larger than its data": (
        ["tasks.nlvr.batch_size=41"],
        "`batch_size` of task 'nlvr' must be at most its training records (40), but is 41.",
    ),
    "task without head": (
        ["backbone={dual}"],
        "`backbone` must be able to do task 'vqa', but records of type 'image_qa' need a model that can write an "
        "answer|Take another backbone, or another type of record",
    ),
    "file in the place of the output folder": (
        ["output={file}"],
        "`output` must be a folder that can be written, but {file} is not",
    ),
    "output folder that nobody may write": (
        ["output=/sys/weft"],
        "`output` must be a folder that can be written, but /sys/weft is not",
    ),
    "unknown data set": (["tasks.vqa.data.name=scens"], "'scens'|Did you mean 'scenes'"),
    "backbone that is nowhere": (["backbone.name=miniatur"], "'miniatur'|Did you mean 'miniature'"),
    "override that is none": (["training.steps"], "`key.sub=value`"),
    "numbers that no optimiser takes, all at once": (
        [
            "training.adam_betas=[1.0,0.9]",
            "training.adam_epsilon=.inf",
            "training.learning_rate=.inf",
            "training.learning_rates={{visual_embedding: -1}}",
            "tasks.vqa.data.sizes.train=-1",
            "seed=4294967296",
        ],
        "has 6 faults:|training.adam_betas.0: Input should be less than 1, but is 1.0.|training.adam_epsilon: Input "
        "should be a finite number|training.learning_rate: Input should be a finite number|visual_embedding: Input "
        "should be greater than or equal to 0|sizes.train: Input should be greater than or equal to 0|seed: Input "
        "should be less than 4294967296",
    ),
    "task that an override misspells": (
        ["tasks.nlvr2.batch_size=4"],
        "tasks.nlvr2.data: this key is needed. Did you mean the task 'nlvr'?",
    ),
    "method that is none": (["method=5"], "- method: a method must be a mapping"),
    "headline that the metric lacks": (
        ["tasks.vqa.headline=accuarcy"],
        "Task 'vqa' cannot be scored on its test split. `headline` must be one of accuracy, but is 'accuarcy'.",
    ),
    "metric of another type of record": (
        ["tasks.nlvr.metric=vqa"],
        "Task 'nlvr' cannot be scored on its test split. `metric` must score records of type 'pair_bool', but 'vqa' "
        "scores 'image_qa'.|Take 'nlvr' or 'nlvr2'.",
    ),
    "store that nobody may write": (
        ["tracking.enabled=true", "tracking.store=/sys/weft"],
        "The folder of the store must be one that can be written, but /sys/weft/spool is not",
    ),
    "server without a host": (
        ["tracking.enabled=true", "tracking.store=http://"],
        "must be a folder or a URI such as http://host:5000, but is 'http://'",
    ),
    "resumed and started over": (
        ["--resume", "--overwrite"],
        "`--resume` must be left out with `--overwrite`",
    ),
}


def loaded(*arguments: Any, **options: Any) -> None:
    raise AssertionError("a model was loaded before the fault was found")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_before_any_long_work(
    fault: str,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "nobody may write" in fault and sys.platform != "linux":
        pytest.skip("/sys, where even root makes no folder, is Linux's")
    monkeypatch.setattr("weft.train.backbones.loading.load_backbone", loaded)
    path, file = tmp_path / "recipe.yaml", tmp_path / "file"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    file.write_text("")
    monkeypatch.chdir(tmp_path)
    changes, messages = FAULTS[fault]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(["train", str(path), *(change.format(dual=json.dumps(DUAL), file=file) for change in changes)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("weft: ")
    assert "Traceback" not in said
    for message in messages.format(file=file).split("|"):
        assert message in said
    assert sorted(tmp_path.iterdir()) == before


def refused(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_a_file_in_the_place_of_the_run_is_no_earlier_run(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "recipe.yaml", Path(values["output"]) / "tiny"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    run.parent.mkdir()
    run.write_text("mine")
    assert refused("train", str(path), "--overwrite") == 2
    assert f"{run} is no folder" in capsys.readouterr().err
    assert run.read_text() == "mine"


@pytest.mark.parametrize(
    "words", [["features", "--store", "{file}"], ["sweep", "output={file}"]], ids=lambda w: w[0]
)
def test_a_folder_that_cannot_be_written_is_refused_before_any_long_work(
    words: list[str],
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("weft.train.backbones.loading.load_backbone", loaded)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    assert refused(words[0], str(path), *(word.format(file=path) for word in words[1:])) == 2
    assert "must be a folder that can be written" in capsys.readouterr().err


def test_resuming_without_the_runs_recipe_is_refused(values: dict[str, Any], finished: Any) -> None:
    recipe = load_recipe(values, ["training.save_every=2"])
    folder = finished(recipe).folder
    (folder / "recipe.yaml").unlink()
    with pytest.raises(RunError, match="`--resume` needs the recipe that"):
        execute(recipe, resume=True)
    for manifest, text in zip(folder.rglob("manifest.json"), (b"[]", b"\xff", b'{"a": 3}'), strict=False):
        manifest.write_bytes(text)
    with pytest.raises(RunError, match="needs a complete checkpoint"):
        execute(recipe, resume=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter/adapter_model.safetensors", b"cut", r"adapter_model\.safetensors cannot be read"),
        ("adapter/weft_config.json", b"{", r"weft_config\.json is not JSON"),
        ("recipe.yaml", b"\xff\xfe", r"recipe\.yaml must be YAML"),
    ],
)
def test_a_half_written_run_is_not_evaluated(
    values: dict[str, Any],
    finished: Any,
    name: str,
    content: bytes,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = finished(load_recipe(values)).folder
    (folder / name).write_bytes(content)
    assert refused("evaluate", str(folder)) == 2
    assert re.search(message, capsys.readouterr().err)
