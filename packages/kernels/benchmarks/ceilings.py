"""What the machine can do at most: copy, matrix product, repeated reads from cache, launch latency."""

from __future__ import annotations

import time

import torch
from timing import gpu_regimes, interleaved, on_gpu, summary


def measure() -> dict[str, float]:
    """Ceilings in GB/s, TFLOP/s and microseconds; every later percentage refers to these."""
    return _gpu() if on_gpu() else _cpu()


def _cpu() -> dict[str, float]:
    source = torch.randn(1 << 25)
    target = torch.empty_like(source)
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    samples = interleaved({"copy": lambda: target.copy_(source), "gemm": lambda: a @ b}, 5)
    copy, gemm = (summary(samples[name])["ms"] for name in ("copy", "gemm"))
    return {"copy_gbps": 2 * source.nbytes / copy / 1e6, "gemm_tflops": 2 * 2048**3 / gemm / 1e9}


def _gpu() -> dict[str, float]:
    source = torch.randn(1 << 29, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    small = torch.randn(4 << 20, device="cuda", dtype=torch.float32)
    found = {
        "copy_gbps": 2 * source.nbytes / gpu_regimes(lambda: target.copy_(source))["ms"] / 1e6,
        "gemm_tflops": 2 * 8192**3 / gpu_regimes(lambda: a @ b)["ms"] / 1e9,
    }
    # Sixteen reductions of 16 MiB in one graph: all but the first read the second-level cache.
    graph = gpu_regimes(lambda: [small.sum() for _ in range(16)]).get("ms_graph", float("nan"))
    found["l2_gbps"] = 16 * small.nbytes / graph / 1e6
    tiny = torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(1000):
        tiny.add_(1)
    torch.cuda.synchronize()
    found["launch_us"] = (time.perf_counter() - start) * 1e3
    return found
