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

from weft.train.cli import main
from weft.train.engine.checkpoints import latest_checkpoint
from weft.train.testing.curves import adapter_weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, to be killed by the dozen"),
]

KILLS = 20


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that have loaded everything before they begin, so that a kill falls into the run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["weft.train.runs.run", "weft.train.cli"])
    return context


def start(processes: Any, recipe: Path, *words: str, command: str = "train") -> Any:
    process = processes.Process(target=main, args=([command, str(recipe), *words],))
    process.start()
    return process


def finish(processes: Any, recipe: Path, *words: str, command: str = "train") -> float:
    started = time.perf_counter()
    process = start(processes, recipe, *words, command=command)
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - started


def words_of(route: str, processes: Any, recipe: Path, stores: Path) -> list[str]:
    """What makes the recipe read its images in another way."""
    if route == "workers":
        return ["training.vision=trained", "training.workers=1"]
    if route == "stored":
        finish(processes, recipe, "--store", str(stores), command="features")
        return [f"tasks.{task}.data.features={stores / task}" for task in ("vqa", "nlvr")]
    return []


@pytest.mark.parametrize(("route", "kills"), [("features", KILLS), ("workers", 6), ("stored", 6)])
def test_kills_at_random_moments_change_nothing(
    values: dict[str, Any], tmp_path: Path, processes: Any, route: str, kills: int
) -> None:
    values["training"] |= {"steps": 24, "save_every": 2, "log_every": 4, "evaluate_every": 8}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    output = Path(values["output"])
    changes = words_of(route, processes, recipe, tmp_path / "stores")
    finish(processes, recipe, *changes, "name=first")  # The features are kept from here on.
    seconds = finish(processes, recipe, *changes, "name=whole")
    expected = adapter_weights(output / "whole")
    scores = json.loads((output / "whole" / "result.json").read_text())["scores"]
    rng, resumed, killed = random.Random(0), 0, 0
    while killed < kills:
        process = start(processes, recipe, *changes, "name=killed", "--overwrite")
        process.join(timeout=rng.uniform(0.0, seconds))
        process.kill()
        process.join()
        if process.exitcode == 0:
            continue
        killed += 1
        whole = latest_checkpoint(output / "killed" / "checkpoints") is not None
        resumed += whole
        finish(processes, recipe, *changes, "name=killed", "--resume" if whole else "--overwrite")
        found = adapter_weights(output / "killed")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), f"kill {killed}"
        assert json.loads((output / "killed" / "result.json").read_text())["scores"] == scores
    assert resumed >= kills // 4, "too few kills came after a checkpoint to test anything"


def test_features_that_are_killed_while_they_are_extracted_go_on(
    values: dict[str, Any], tmp_path: Path, processes: Any
) -> None:
    del values["tasks"]["nlvr"]
    # More images than one shard holds.
    values["tasks"]["vqa"]["data"]["options"] |= {"size": 6000, "num_scenes": 20_000}
    recipe, store = tmp_path / "recipe.yaml", tmp_path / "killed" / "vqa"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    seconds = finish(processes, recipe, "--store", str(tmp_path / "whole"), command="features")
    rng = random.Random(0)
    for waited in (rng.uniform(0.0, 0.7) * seconds, None, rng.uniform(0.0, 0.2) * seconds):
        process = start(processes, recipe, "--store", str(tmp_path / "killed"), command="features")
        process.join(timeout=waited if waited is not None else 0.0)
        while waited is None and process.exitcode is None and not list(store.glob("features-*.npy")):
            time.sleep(0.01)
        process.kill()
        process.join()
    assert list(store.glob("features-00000-*.npy"))
    finish(processes, recipe, "--store", str(tmp_path / "killed"), command="features")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
