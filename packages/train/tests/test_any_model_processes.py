"""A chat model in two processes is what it is in one, also where rows are left out of some batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
import yaml

from weft.core.testing.processed import tiny
from weft.train.testing.curves import assert_same_curve, assert_same_weights
from weft.train.testing.own_data import own_task, short_run, write_own_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo"),
]
STEPS = 20
ENVIRONMENT = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    data = write_own_data(tmp_path / "data")
    rows = [json.loads(line) for line in (data / "vqa.jsonl").read_text().splitlines()]
    for row in rows[::5]:
        row["question"] += (
            " Think of it for a long time and then say it in a single word, as short as you can."
        )
    (data / "vqa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "name": "one",
        "backbone": {"name": str(tiny("llava").save(tmp_path / "model"))},
        "method": {"method": "lora", "rank": 2, "sharing": "multiple"},
        "tasks": {
            "vqa": own_task(data, "image_qa", ask="{question}", metric="exact", max_new_tokens=4),
            "caption": own_task(data, "caption", ask="Describe the picture.", max_new_tokens=4),
        },
        "evaluation": {"batch_size": 4},
        **short_run(
            tmp_path / "runs",
            steps=STEPS,
            batch_size=6,
            learning_rate=1e-3,
            log_every=1,
            save_every=10,
            max_tokens=80,
            too_long="drop",
        ),
    }


def run(recipe: Path, *words: str, processes: int = 1) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = [*(launcher if processes > 1 else [sys.executable]), "-m", "weft.train", str(recipe), *words]
    done = subprocess.run(program, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("sharded", [False, True], ids=["replicated", "sharded"])
def test_two_processes_follow_one(recipe: dict[str, Any], sharded: bool, tmp_path: Path) -> None:
    path, output = tmp_path / "recipe.yaml", Path(recipe["output"])
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run(path)
    run(path, "name=two", f"training.sharded={str(sharded).lower()}", processes=2)
    assert_same_curve(output / "one", output / "two", STEPS)
    assert_same_weights(output / "one", output / "two")
    log = json.loads(
        (output / "one" / "checkpoints" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text()
    )
    left_out = [entry["rows_left_out"] for entry in log["log_history"] if "rows_left_out" in entry]
    assert sum(left_out) > 0
    assert min(left_out) == 0
    scores = [json.loads((output / name / "result.json").read_text())["scores"] for name in ("one", "two")]
    assert scores[0] == scores[1]
