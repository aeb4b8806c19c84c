"""What a GPU is needed for is ready to be run: its script, and a step that runs anywhere in small."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_a_step_is_measured_on_both_backends_alike(tmp_path: Path) -> None:
    words = [sys.executable, "benchmarks/gpu_step.py", "--small", "--out", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / "gpu_step.json").read_text("utf-8"))["methods"]
    assert set(found) == {"bottleneck", "lora"}
    for values in found.values():
        assert values["loss"]["auto"] == pytest.approx(values["loss"]["torch"], rel=1e-2)
        assert all(math.isfinite(each) for each in values["ms"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: run scripts/gpu_check.sh itself")
def test_the_script_says_that_there_is_no_device(tmp_path: Path) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    script = ["bash", "scripts/gpu_check.sh", str(tmp_path)]
    done = subprocess.run(
        script, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "No CUDA device is visible: nothing is checked.\n")
