"""Measure the operations against their baselines.

With ``packages/kernels/src`` on PYTHONPATH: ``python3 packages/kernels/benchmarks/run.py --out DIR`` on a
CUDA device, with ``--cpu`` added for the reference paths. Needs torch (and triton for CUDA), nothing else;
plots are drawn where matplotlib is installed.

Writes ``results.jsonl`` with one row per case and provider, and prints a table last. Ceilings are measured
first; every row states its share of them, from stated counts of bytes and operations.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import platform
import subprocess
import sys
from typing import Any

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from ceilings import measure  # noqa: E402
from suites import SUITES, Case  # noqa: E402
from timing import gpu_regimes, interleaved, on_gpu, peak_megabytes, summary  # noqa: E402


def environment() -> dict[str, str]:
    """What a figure is worth nothing without."""
    try:
        import triton

        version = triton.__version__
    except ImportError:
        version = "none"
    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True)
    device = torch.cuda.get_device_name() if on_gpu() else platform.processor() or platform.machine()
    return {
        "commit": commit.stdout.strip() or "unknown",
        "device": device,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "triton": version,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def rows_of(case: Case, ceilings: dict[str, float]) -> list[dict[str, Any]]:
    """One row per provider of a case, with ratios to the op itself."""
    error = None if case.check is None else case.check()
    if on_gpu():
        measured = {name: gpu_regimes(run) for name, run in case.runs.items()}
    else:
        samples = interleaved(case.runs, case.repeats)
        measured = {name: summary(values) for name, values in samples.items()}
    rows = []
    for name, times in measured.items():
        seconds = times["ms"] / 1e3
        row = {"suite": case.suite, "mode": case.mode, "provider": name, **case.shape, **times}
        row["speedup_of_weft"] = times["ms"] / measured["weft"]["ms"]
        row["percent_copy_roof"] = 100 * case.bytes_floor / seconds / 1e9 / ceilings["copy_gbps"]
        row["percent_gemm_roof"] = 100 * case.flops / seconds / 1e12 / ceilings["gemm_tflops"]
        if case.memory:
            row["peak_mib"] = peak_megabytes(case.runs[name])
        if name == "weft" and error is not None:
            row["relative_error"] = error
            row["bitwise_repeatable"] = _repeatable(case)
        rows.append(row)
    return rows


def _repeatable(case: Case) -> bool:
    def tensors() -> list[torch.Tensor]:
        torch.manual_seed(0)
        result = case.runs["weft"]()
        return list(result) if isinstance(result, list | tuple) else [result]

    return all(torch.equal(a, b) for a, b in zip(tensors(), tensors(), strict=True))


def table(rows: list[dict[str, Any]]) -> str:
    """Fixed-width text, one line per row."""
    lines = [
        f"{'suite':18}{'mode':32}{'shape':44}{'provider':14}{'ms':>10}{'× weft':>9}{'% copy':>8}{'% gemm':>8}"
    ]
    skip = (
        "ms",
        "speed",
        "percent",
        "suite",
        "mode",
        "provider",
        "peak",
        "relative",
        "bitwise",
        "graph",
        "env",
    )
    for row in rows:
        shape = " ".join(f"{k}={v}" for k, v in row.items() if not k.startswith(skip))
        lines.append(
            f"{row['suite']:18}{row['mode']:32}{shape:44}{row['provider']:14}{row['ms']:10.3f}"
            f"{row['speedup_of_weft']:9.2f}{row['percent_copy_roof']:8.1f}{row['percent_gemm_roof']:8.1f}"
            + (f"  peak {row['peak_mib']:.0f} MiB" if "peak_mib" in row else "")
        )
    return "\n".join(lines)


def main() -> int:
    """Parse arguments, measure, write, print."""
    parser = argparse.ArgumentParser(description="Measure weft.kernels against its baselines.")
    default = pathlib.Path("build") / "bench_kernels"
    parser.add_argument(
        "--out", type=pathlib.Path, default=default, help="folder for results.jsonl and plots"
    )
    parser.add_argument(
        "--suite", choices=sorted(SUITES), action="append", help="only this suite; repeatable"
    )
    parser.add_argument("--cpu", action="store_true", help="measure the reference paths on the CPU")
    options = parser.parse_args()
    if not options.cpu and not on_gpu():
        sys.stdout.write("No CUDA device is visible: nothing measured. Use --cpu for the reference paths.\n")
        return 0
    if options.cpu and on_gpu():
        sys.stdout.write("--cpu was given: hide the GPU with CUDA_VISIBLE_DEVICES= to measure the CPU.\n")
        return 2
    torch.manual_seed(0)
    ceilings, about = measure(), environment()
    sys.stdout.write(json.dumps({**about, **ceilings}) + "\n")
    device, dtype = ("cpu", torch.float32) if options.cpu else ("cuda", torch.bfloat16)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with (options.out / "results.jsonl").open("a") as file:
        for name in options.suite or SUITES:
            for case in SUITES[name](device, dtype, options.cpu):
                for row in rows_of(case, ceilings):
                    rows.append(row)
                    file.write(json.dumps({**row, **about, **ceilings}) + "\n")
                    file.flush()
    try:
        from plot import draw

        draw(rows, ceilings, options.out)
    except ImportError:
        sys.stdout.write("matplotlib is not installed: no plots.\n")
    sys.stdout.write(table(rows) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
