"""A model of seven billion parameters is planned and attached to in seconds, on the meta device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "large_plan.py"


@pytest.mark.slow
def test_qwen2_5_vl_of_seven_billion_parameters():
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True, check=True)
    model, *methods = [json.loads(line) for line in done.stdout.splitlines()]
    assert model["parameters"] == 8_292_166_656
    assert [row["method"] for row in methods] == ["lora", "bottleneck"]
    for row in methods:
        assert row["plan_seconds"] <= 2, row
        assert row["attach_seconds"] <= 5, row
