"""The benchmarks of single packages, which lie beside them: each runs in a process and prints lines of JSON."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure.options import Measure, Options
from benchmarks.measure.results import versions
from benchmarks.measure.sides import ROOT


def lines_of(text: str) -> list[dict[str, Any]]:
    """The lines of JSON in a text."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def ran(script: str, *words: str) -> str:
    """What a script of the repository prints; what it complains about stays on the screen."""
    done = subprocess.run(
        [sys.executable, script, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def core(options: Options, *, script: str, words: tuple[str, ...], quick: tuple[str, ...]) -> dict[str, Any]:
    """A script of core."""
    found = ran(f"packages/core/benchmarks/{script}.py", *words, *(quick if options.quick else ()))
    return {"versions": versions("torch", "transformers", "peft", "weft-core"), "rows": lines_of(found)}


def kernels(options: Options) -> dict[str, Any]:
    """The operations against plain torch: Triton's kernels where there is a GPU, else the reference paths."""
    words = [] if torch.cuda.is_available() else ["--cpu"]
    words += ["--suite", "kronecker"] if options.quick else []
    with tempfile.TemporaryDirectory() as name:
        ran("packages/kernels/benchmarks/run.py", "--out", name, *words)
        rows = lines_of((Path(name) / "results.jsonl").read_text("utf-8"))
    same = {key: rows[0][key] for key in ("device", "threads", "torch", "triton", "copy_gbps", "gemm_tflops")}
    left = {*same, "commit", "time"}
    return {**same, "rows": [{key: row[key] for key in row if key not in left} for row in rows]}


CASES: dict[str, Measure] = {
    "kernels": kernels,
    "core_large_plan": functools.partial(core, script="large_plan", words=("--peft",), quick=()),
    "core_mixed_tasks": functools.partial(
        core,
        script="mixed_tasks",
        words=("--peft",),
        quick=("--methods", "lora", "--width", "128", "--rows", "64", "--length", "4", "--repeats", "2"),
    ),
    "core_cache_search": functools.partial(
        core,
        script="cache_search",
        words=(),
        quick=("--queries", "64", "--classes", "50", "--pairs", "2", "--best", "1"),
    ),
}
