"""A run killed from outside, resumed, must end in the very weights of an undisturbed one."""

import json
import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from weft.train.checkpoints import newest_whole
from weft.train.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, to be killed by the dozen"),
]

KILLS = 20


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that have loaded everything before they begin, so that a kill falls into the run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["weft.train.run", "weft.train.cli"])
    return context


def start(processes: Any, recipe: Path, *words: str) -> Any:
    process = processes.Process(target=main, args=(["train", str(recipe), *words],))
    process.start()
    return process


def finish(processes: Any, recipe: Path, *words: str) -> float:
    started = time.perf_counter()
    process = start(processes, recipe, *words)
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - started


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_twenty_kills_at_random_moments_change_nothing(
    values: dict[str, Any], tmp_path: Path, processes: Any
) -> None:
    values["training"] |= {"steps": 24, "save_every": 2, "log_every": 4, "evaluate_every": 8}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    output = Path(values["output"])
    finish(processes, recipe, "name=first")  # The features are kept from here on.
    seconds = finish(processes, recipe, "name=whole")
    expected = weights(output / "whole")
    scores = json.loads((output / "whole" / "result.json").read_text())["scores"]
    rng, resumed, killed = random.Random(0), 0, 0
    while killed < KILLS:
        process = start(processes, recipe, "name=killed", "--overwrite")
        process.join(timeout=rng.uniform(0.0, seconds))
        process.kill()
        process.join()
        if process.exitcode == 0:
            continue
        killed += 1
        whole = newest_whole(output / "killed" / "checkpoints") is not None
        resumed += whole
        finish(processes, recipe, "name=killed", "--resume" if whole else "--overwrite")
        found = weights(output / "killed")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), f"kill {killed}"
        assert json.loads((output / "killed" / "result.json").read_text())["scores"] == scores
    assert resumed >= KILLS // 4, "too few kills came after a checkpoint to test anything"
