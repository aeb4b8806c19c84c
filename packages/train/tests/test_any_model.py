"""Any vision-language model in a folder, on anybody's tables: planned, tried out, trained, killed, scored, compared."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from weft.core.testing.processed import tiny
from weft.train.cli import main
from weft.train.engine.checkpoints import latest_checkpoint
from weft.train.testing.commands import run_command
from weft.train.testing.curves import adapter_weights
from weft.train.testing.own_data import own_task, write_own_data

WRITERS = (
    "llava",
    "qwen2_5_vl",
    "blip_vqa",
    "llava_onevision",
    "qwen3_vl",
    "smolvlm",
    "gemma3",
    "paligemma",
    "blip2",
    "instructblip",
    "blip_caption",
    "internvl",
    "mllama",
    "florence2",
)
ENCODERS = ("clip", "siglip", "siglip2", "blip_itr")
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "rank": 2, "sharing": "multiple"},
    "adapter": {"method": "bottleneck", "init": "bert", "reduction_factor": 4, "sharing": "single"},
}
QUICK = {("llava", "lora"), ("qwen2_5_vl", "adapter"), ("clip", "lora")}
CASES = [
    pytest.param(
        name, method, marks=() if (name, method) in QUICK else pytest.mark.slow, id=f"{name}-{method}"
    )
    for name in (*WRITERS, *ENCODERS)
    for method in METHODS
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own_data(tmp_path_factory.mktemp("own-data"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else tiny(name).save(root / name)

    return folder


@pytest.fixture(scope="module")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["weft.train.runs.run", "weft.train.testing.commands"])
    return context


def tasks_of(name: str, data: Path) -> dict[str, Any]:
    if name in ENCODERS:
        return {"pairs": own_task(data, "retrieval"), "others": own_task(data, "retrieval")}
    asked = {"ask": "{question} Answer with one word.", "metric": "exact", "max_new_tokens": 4}
    described = {"ask": "Describe the picture.", "max_new_tokens": 6, "num_beams": 2}
    return {"vqa": own_task(data, "image_qa", **asked), "caption": own_task(data, "caption", **described)}


@pytest.fixture
def recipe(
    folders: Callable[[str], Path], data: Path, store: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """A recipe of seconds: a model of a folder, two tasks, mixed batches where rows are not compared."""

    def make(name: str, method: str = "lora") -> dict[str, Any]:
        return {
            "name": "whole",
            "backbone": {"name": str(folders(name))},
            "method": METHODS[method],
            "tasks": tasks_of(name, data),
            "training": {
                "steps": 8,
                "batch_size": 4,
                "learning_rate": 1e-2,
                "log_every": 2,
                "save_every": 2,
                "evaluate_every": 4,
                "threads": 1,
                "mixing": {"unit": "homogeneous" if name in ENCODERS else "mixed"},
            },
            "evaluation": {"batch_size": 4},
            "tracking": {"experiment": "own", "store": str(store)},
            "output": str(tmp_path / "runs"),
        }

    return make


def weft(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert not ended.value.code, words


def written(values: dict[str, Any], folder: Path) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return str(path)


def killed_behind_a_checkpoint(processes: Any, run: Path, words: list[str]) -> None:
    """Start a run and end it, with no chance to say a word, as soon as there is a checkpoint."""
    process = processes.Process(target=run_command, args=(words,))
    process.start()
    while latest_checkpoint(run / "checkpoints") is None:
        assert process.is_alive(), "the run ended before its first checkpoint"
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -9


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a signal")
@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_model_of_a_folder_goes_the_whole_way(
    name: str,
    method: str,
    recipe: Callable[..., dict[str, Any]],
    processes: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = recipe(name, method)
    path, runs = written(values, tmp_path), Path(values["output"])
    weft("plan", path, "--json")
    planned = json.loads(capsys.readouterr().out)
    weft("train", path, "--dry-run")
    tried = capsys.readouterr().out
    assert "its vision tower runs in every batch" in tried
    if name in ENCODERS:
        assert "a red" in tried or "a blue" in tried or "a green" in tried or "a yellow" in tried
    else:
        assert "What colour is the" in tried
        assert "' -> '" in tried
    assert not (runs / "whole").exists()

    weft("train", path)
    result = json.loads((runs / "whole" / "result.json").read_text())
    assert result["trainable"] == planned["trainable_parameters"]
    assert set(result["scores"]) == {*values["tasks"], "average"}
    before = capsys.readouterr().out

    killed_behind_a_checkpoint(processes, runs / "killed", ["train", path, "name=killed"])
    weft("train", path, "name=killed", "--resume")
    one, two = adapter_weights(runs / "whole"), adapter_weights(runs / "killed")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    again = json.loads((runs / "killed" / "result.json").read_text())
    assert again["reports"] == result["reports"]
    for task in values["tasks"]:
        predictions = [
            (runs / run / "predictions" / f"{task}.json").read_text() for run in ("whole", "killed")
        ]
        assert predictions[0] == predictions[1]

    capsys.readouterr()
    weft("evaluate", str(runs / "whole"))
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert table == [line for line in before.splitlines() if line.startswith("│")]
    weft("compare", "own", "--store", values["tracking"]["store"], "--format", "csv")
    compared = capsys.readouterr().out
    assert "whole" in compared
    assert "killed" in compared
