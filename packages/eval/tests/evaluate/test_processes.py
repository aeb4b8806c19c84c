"""Evaluation by several processes through `predict` itself, of numbers of records that do not divide."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from weft.eval.evaluate.processes import each_batch, shared_batches


def outcomes(size: int, meeting: Path) -> list[Any]:
    script = Path(__file__).with_name("outcomes.py")
    commands = [[sys.executable, str(script), str(rank), str(size), str(meeting)] for rank in range(size)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    return [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in started]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_processes_predict_and_score_together_what_one_does_alone(tmp_path: Path, size: int) -> None:
    [(alone, batches)] = outcomes(1, tmp_path / "alone")
    together = outcomes(size, tmp_path / "together")
    assert [found for found, _ in together] == [alone] * size
    # Every batch that one process computes, one of several computes, and none of them twice.
    assert sorted(count for _, seen in together for count in seen) == sorted(batches)
    assert all(len(seen) < len(batches) for _, seen in together)


def test_alone_every_batch_is_run_here_in_order() -> None:
    seen: list[int] = []
    with shared_batches():
        assert each_batch([[1, 2], [3]], sum, seen.append) == [3, 3]
    assert seen == [2, 3]
