"""Timing of one function in the regimes that matter, and peak memory."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Run = Callable[[], Any]


def on_gpu() -> bool:
    """Whether measurements run on CUDA."""
    return torch.cuda.is_available()


def interleaved(runs: dict[str, Run], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of every run on the CPU, taken in turns.

    Processor time, summed over threads, and not the wall clock: a busy machine disturbs it less.
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            samples[name].append((time.process_time() - start) * 1e3)
    return samples


def gpu_regimes(run: Run) -> dict[str, float]:
    """Milliseconds on the GPU: with a cold cache, inside a CUDA graph, and by the wall clock."""
    import triton.testing

    p50, p20, p80 = triton.testing.do_bench(run, warmup=50, rep=200, quantiles=[0.5, 0.2, 0.8])
    row = {"ms": p50, "ms_p20": p20, "ms_p80": p80}
    try:
        row["ms_graph"] = triton.testing.do_bench_cudagraph(run, rep=50, return_mode="median")
    except RuntimeError as error:
        # Baselines that read values on the host cannot be captured; say so instead of a number.
        row["graph_error"] = str(error).partition("\n")[0][:120]  # type: ignore[assignment]
        torch.cuda.synchronize()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        run()
    torch.cuda.synchronize()
    row["ms_wall"] = (time.perf_counter() - start) / 50 * 1e3
    return row


def summary(samples: list[float]) -> dict[str, float]:
    """Median and outer fifths of CPU samples."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    return {
        "ms": statistics.median(ordered),
        "ms_p20": ordered[round(0.2 * last)],
        "ms_p80": ordered[round(0.8 * last)],
    }


def peak_megabytes(run: Run) -> float:
    """Largest memory allocated during `run` beyond what lived before it, in MiB."""
    run()
    if on_gpu():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler says on the screen that it starts and stops
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    current = highest = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            highest = max(highest, current)
    return highest / 2**20
