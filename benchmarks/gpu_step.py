"""A training step of a BART of base size with adapters for four tasks, on Triton's kernels and on plain torch.

`python3 benchmarks/gpu_step.py --out FOLDER` needs torch, transformers and PYTHONPATH; `scripts/gpu_check.sh` calls it.
The two take turns in one process. On a CPU (`--small`) it only shows that it runs: there both are plain torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from weft.core import BottleneckConfig, LoRAConfig, UnitConfig, attach

TASKS = ("vqa", "gqa", "nlvr", "caption")
METHODS: dict[str, UnitConfig] = {
    "bottleneck": BottleneckConfig(bottleneck_size=96, sharing="half"),
    "lora": LoRAConfig(rank=16, sharing="multiple"),
}
BACKENDS = ("auto", "torch")


def model_of(method: UnitConfig, small: bool, device: torch.device) -> Any:
    """A BART of base size, or a tiny one, with its adapters."""
    layers, width = (2, 64) if small else (6, 768)
    sizes = {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in
             (("layers", layers), ("ffn_dim", 4 * width), ("attention_heads", width // 64))}  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(
        transformers.BartConfig(vocab_size=500 if small else 50_265, d_model=width, **sizes)
    )
    return attach(model.to(device), method, list(TASKS)).train()


def steps(model: Any, rows: int, tokens: int, count: int) -> tuple[list[float], float, int]:
    """Milliseconds of each of some steps in bfloat16, the last loss, and the peak of allocated bytes."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(4, model.config.vocab_size, (rows, tokens), generator=generator).to(device)
    tasks = [TASKS[row % len(TASKS)] for row in range(rows)]
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-4)
    on_gpu, found, loss = device.type == "cuda", [], float("nan")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(count):
        wait(on_gpu)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16), model.route(tasks=tasks):
            value = model(input_ids=words, labels=words).loss
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(on_gpu)
        found.append((time.perf_counter() - start) * 1e3)
        loss = float(value)
    return found, loss, torch.cuda.max_memory_allocated() if on_gpu else 0


def wait(on_gpu: bool) -> None:
    """Wait until the device has done everything."""
    if on_gpu:
        torch.cuda.synchronize()


def measured(method: UnitConfig, small: bool, device: torch.device, turns: int) -> dict[str, Any]:
    """Both ways in turns: median milliseconds, last losses, and peak memory."""
    rows, tokens, count = (8, 12, 4) if small else (64, 56, 12)
    times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    losses, peaks = {}, {}
    for turn in range(turns + 1):
        for backend in BACKENDS:
            os.environ["WEFT_KERNELS_BACKEND"] = backend
            found, losses[backend], peaks[backend] = steps(
                model_of(method, small, device), rows, tokens, count
            )
            times[backend] += found[2:] if turn else []  # the first turn compiles
    medians = {backend: statistics.median(each or [float("nan")]) for backend, each in times.items()}
    return {
        "rows": rows,
        "tokens": tokens,
        "ms": medians,
        "ratio": medians["auto"] / medians["torch"],
        "loss": losses,
        "peak_mib": {backend: peak / 2**20 for backend, peak in peaks.items()},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu_step.json")
    parser.add_argument("--small", action="store_true", help="a tiny model, on whatever device there is")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.small):
        sys.exit("No CUDA device is visible: nothing is measured. --small shows that it runs.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    values = {
        "commit": commit or "unknown",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "methods": {
            name: measured(one, options.small, device, 1 if options.small else 3)
            for name, one in METHODS.items()
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=1) + "\n"
    (options.out / "gpu_step.json").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
