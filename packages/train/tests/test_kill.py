"""A run killed from outside, resumed, must end in the very weights of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

STEPS = 60


def command(recipe: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "weft.train", str(recipe), *words]


def train(recipe: Path, *words: str) -> None:
    done = subprocess.run(command(recipe, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def kill_when(recipe: Path, folder: Path, rng: random.Random, *words: str) -> None:
    """Start a run and kill it a random moment after it has written a new checkpoint."""
    before = {path.name for path in folder.glob("checkpoint-*")}
    process = subprocess.Popen(command(recipe, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and {path.name for path in folder.glob("checkpoint-*")} <= before:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 1.0))
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("seed", [0, 1])
def test_kill_minus_nine_and_resume_give_identical_weights(
    values: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    values["training"] |= {"steps": STEPS, "save_every": 4, "log_every": 4}
    values["tasks"].pop("nlvr")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    train(recipe, "name=whole")
    folder = Path(values["output"]) / "broken" / "checkpoints"
    rng = random.Random(seed)
    kill_when(recipe, folder, rng, "name=broken")
    assert not (Path(values["output"]) / "broken" / "result.json").exists(), (
        "the kill came too late to test anything"
    )
    kill_when(recipe, folder, rng, "name=broken", "--resume")
    train(recipe, "name=broken", "--resume")
    one, two = (
        load_file(Path(values["output"]) / name / "adapter" / "adapter_model.safetensors")
        for name in ("whole", "broken")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
