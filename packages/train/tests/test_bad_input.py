"""Faults of recipe, data or folder: one message and exit code 2, before a model is loaded or a file written."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.train.cli import main

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
        "`backbone` must be able to do task 'vqa', but records of type 'image_qa' need a model with `generate`|Take "
        "another backbone, or another type of record",
    ),
    "file in the place of the output folder": (
        ["output={file}"],
        "`output` must be a folder that can be written, but {file}/tiny cannot be made",
    ),
    "output folder that nobody may write": (
        ["output=/sys/weft"],
        "`output` must be a folder that can be written, but /sys/weft/tiny cannot be made",
    ),
    "unknown data set": (["tasks.vqa.data.name=scens"], "'scens'|Did you mean 'scenes'"),
    "backbone that is nowhere": (["backbone.name=miniatur"], "'miniatur'|Did you mean 'miniature'"),
    "override that is none": (["training.steps"], "`key.sub=value`"),
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
    monkeypatch.setattr("weft.train.run.load_backbone", loaded)
    path, file = tmp_path / "recipe.yaml", tmp_path / "file"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    file.write_text("")
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
