"""Two processes under torchrun give what one process gives."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file

from weft.data.records import MediaRef, Retrieval
from weft.train.errors import RunError
from weft.train.fitness import check_objectives
from weft.train.processes import ONE, Processes, join_processes
from weft.train.recipe import load_recipe
from weft.train.run import execute
from weft.train.task_data import TaskData, load_tasks

needs_gloo = pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
STEPS = 20


def run(recipe: Path, *words: str, processes: int = 1) -> None:
    command = (
        [*LAUNCH, str(processes), "-m", "weft.train"]
        if processes > 1
        else [sys.executable, "-m", "weft.train"]
    )
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(recipe), *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


def losses(folder: Path) -> list[dict[str, float]]:
    newest = max((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return [{k: v for k, v in entry.items() if k.startswith("loss")} for entry in history if "loss" in entry]


@pytest.fixture
def recipe(values: dict[str, Any], tmp_path: Path) -> Path:
    values["training"] |= {"steps": STEPS, "save_every": 10, "log_every": 1, "learning_rate": 1e-3}
    values["training"] |= {"evaluate_every": 10}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@needs_gloo
@pytest.mark.slow
def test_two_processes_follow_the_losses_and_scores_of_one(recipe: Path, values: dict[str, Any]) -> None:
    output = Path(values["output"])
    run(recipe, "name=one")
    run(recipe, "name=two", processes=2)
    one, two = losses(output / "one"), losses(output / "two")
    assert len(one) == STEPS
    for single, pair in zip(one, two, strict=True):
        assert single.keys() == pair.keys()
        assert all(abs(single[key] - pair[key]) < 1e-5 for key in single)
    scores = [json.loads((output / name / "result.json").read_text()) for name in ("one", "two")]
    assert scores[0]["scores"] == scores[1]["scores"]
    for name, report in scores[1]["reports"].items():
        assert report["n"] == scores[0]["reports"][name]["n"]
        predictions = [
            json.loads((output / run / "predictions" / f"{name}.json").read_text()) for run in ("one", "two")
        ]
        assert predictions[0] == predictions[1]


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(
    recipe: Path, values: dict[str, Any], before: int, after: int
) -> None:
    output = Path(values["output"])
    run(recipe, "name=whole")
    run(recipe, "name=changed", processes=before)
    for path in ("checkpoint-20", "best"):
        (output / "changed" / "checkpoints" / path / "manifest.json").unlink()
    run(recipe, "name=changed", "--resume", processes=after)
    for single, changed in zip(losses(output / "whole"), losses(output / "changed"), strict=True):
        assert all(abs(single[key] - changed[key]) < 1e-5 for key in single)
    one, two = (
        load_file(output / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "changed")
    )
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], atol=1e-5, rtol=1e-4, msg=key)


def test_sharded_training_is_refused_with_the_reason(values, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RunError, match=r"must not ask for FSDP.*Accelerate ignores FSDP on CPUs"):
        execute(load_recipe(values))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(RunError, match="must not ask for DeepSpeed"):
        join_processes()


def test_one_process_needs_no_launcher():
    alone = join_processes()
    assert (alone.rank, alone.size, alone.first) == (0, 1, True)
    with alone.first_alone():
        alone.wait()
    assert alone.from_first("x") == "x"


def test_objectives_that_compare_rows_stay_in_one_process(values):
    media = MediaRef.from_bytes(b"")
    pairs = {
        "find": TaskData({"train": [Retrieval(id="1", media=media, media_id="1", text="a", text_id="1")]})
    }
    two = Processes(0, 2, torch.device("cpu"))
    with pytest.raises(RunError, match="Task 'find' must be trained by one process, but there are 2"):
        check_objectives(pairs, two)
    check_objectives(pairs, ONE)
    check_objectives(load_tasks(load_recipe(values), ("train",)), two)
