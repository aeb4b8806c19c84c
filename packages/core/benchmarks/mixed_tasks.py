"""Step time of a batch that mixes tasks, at 1, 4, 16 and 64 tasks.

`python packages/core/benchmarks/mixed_tasks.py` prints a line per method and number of tasks. All runs of a method
take turns in one process. On a CPU the time is the processor's, which a busy machine disturbs less than the wall
clock; on a GPU it is the wall clock with the device waited for. `results/mixed_tasks.jsonl` holds what was measured.

What many tasks cost does not grow with the tokens: every slot is read by matrix products of few rows, and 64 tasks
have 64 times the gradients, which glibc gives back to the system after every step and requests again, page by page.
With rows of 16 tokens it shows: 64 tasks take 1.20 of the time of one, and 1.10 with
`MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_MMAP_THRESHOLD_=1000000000` in front of the command, which keeps the pages.

With `--loop`, a loop of one pass per task over the same rows runs beside each.
With `--peft`, PEFT's own mixed batch (`adapter_names`, which it allows in inference alone) runs beside LoRA of weft
in inference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from weft.core import attach

TASKS = (1, 4, 16, 64)
METHODS: dict[str, dict[str, Any]] = {
    "bottleneck": {"method": "bottleneck", "reduction_factor": 8, "sharing": "multiple"},
    "half-shared": {"method": "bottleneck", "reduction_factor": 8, "sharing": "half"},
    "compacter": {"method": "compacter", "reduction_factor": 8, "sharing": "multiple"},
    "lora": {"method": "lora", "rank": 16, "sharing": "multiple"},
}


def backbone(width: int, layers: int, device: torch.device) -> Any:
    """A BART of random weights."""
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=2000,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=256,
    )
    return transformers.BartForConditionalGeneration(config).to(device)


def training_step(model: Any, batch: dict[str, torch.Tensor], names: list[str]) -> Callable[[], None]:
    """Forward and backward of one batch, each row of the task named for it."""

    def run() -> None:
        with model.route(tasks=names):
            model(**batch).loss.backward()
        model.zero_grad(set_to_none=True)

    return run


def training_loop(model: Any, batch: dict[str, torch.Tensor], names: list[str]) -> Callable[[], None]:
    """The same rows, one pass per task."""
    rows = {task: [row for row, name in enumerate(names) if name == task] for task in dict.fromkeys(names)}
    parts = {task: {name: value[own] for name, value in batch.items()} for task, own in rows.items()}

    def run() -> None:
        for task, part in parts.items():
            with model.route(task=task):
                model(**part).loss.backward()
        model.zero_grad(set_to_none=True)

    return run


def timed(runs: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of every run, taken in turns after one round to warm up."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            _wait(device)
            start = clock()
            run()
            _wait(device)
            samples[name].append((clock() - start) * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(method: str, settings: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row per number of tasks for a method."""
    ids = torch.randint(5, 2000, (settings.rows, settings.length), device=device)
    batch = {"input_ids": ids, "labels": ids}
    runs: dict[str, Callable[[], None]] = {}
    for tasks in TASKS:
        names = [f"t{row % tasks}" for row in range(settings.rows)]
        model = backbone(settings.width, settings.layers, device).train()
        attach(model, METHODS[method], [f"t{index}" for index in range(tasks)])
        runs[f"mixed {tasks}"] = training_step(model, batch, names)
        if settings.loop:
            runs[f"loop {tasks}"] = training_loop(model, batch, names)
    found = timed(runs, settings.repeats, device)
    rows = []
    for tasks in TASKS:
        mixed, loop = found[f"mixed {tasks}"], found.get(f"loop {tasks}")
        looped = (
            {} if loop is None else {"loop_ms": round(loop, 2), "loop_over_mixed": round(loop / mixed, 3)}
        )
        ratio = round(mixed / found["mixed 1"], 3)
        rows.append(
            {
                "method": method,
                "tasks": tasks,
                "mixed_ms": round(mixed, 2),
                **looped,
                "mixed_over_one_task": ratio,
            }
        )
    return rows


def measure_inference(settings: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """LoRA in inference, weft's and PEFT's, each with its own mixed batch."""
    import peft

    ids = torch.randint(5, 2000, (settings.rows, settings.length), device=device)
    batch = {"input_ids": ids, "labels": ids}
    runs: dict[str, Callable[[], None]] = {}
    for tasks in TASKS:
        names = [f"t{row % tasks}" for row in range(settings.rows)]
        ours = backbone(settings.width, settings.layers, device).eval()
        attach(ours, METHODS["lora"], [f"t{index}" for index in range(tasks)])
        config = peft.LoraConfig(
            r=16, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False
        )
        theirs = peft.get_peft_model(
            backbone(settings.width, settings.layers, device).eval(), config, adapter_name="t0"
        )
        for index in range(1, tasks):
            theirs.add_adapter(f"t{index}", config)
        runs[f"weft {tasks}"] = _inference(ours, batch, {"route": names})
        runs[f"peft {tasks}"] = _inference(theirs.eval(), batch, {"adapter_names": names})
    found = timed(runs, settings.repeats, device)
    return [
        {
            "method": f"lora, inference, {library}",
            "tasks": tasks,
            "mixed_ms": round(found[f"{library} {tasks}"], 2),
            "mixed_over_one_task": round(found[f"{library} {tasks}"] / found[f"{library} 1"], 3),
        }
        for library in ("weft", "peft")
        for tasks in TASKS
    ]


def _inference(model: Any, batch: dict[str, torch.Tensor], names: dict[str, list[str]]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            if "route" in names:
                with model.route(tasks=names["route"]):
                    model(**batch)
            else:
                model(**batch, **names)

    return run


def main() -> None:
    """Measure what the arguments ask for and print a line of JSON per row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=sorted(METHODS))
    parser.add_argument("--width", type=int, default=768, help="hidden size; BART-base has 768")
    parser.add_argument("--layers", type=int, default=2, help="layers of encoder and of decoder")
    parser.add_argument("--rows", type=int, default=64, help="rows of the batch")
    parser.add_argument("--length", type=int, default=56, help="tokens of a row: VL-BART's 36 and 20")
    parser.add_argument("--repeats", type=int, default=15, help="measured rounds")
    parser.add_argument("--loop", action="store_true", help="a loop over tasks beside each")
    parser.add_argument("--peft", action="store_true", help="inference of LoRA, beside PEFT's")
    settings = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    for method in settings.methods:
        for row in measure(method, settings, device):
            print(json.dumps({"device": device.type, **row}), flush=True)
    if settings.peft:
        for row in measure_inference(settings, device):
            print(json.dumps({"device": device.type, **row}), flush=True)


if __name__ == "__main__":
    main()
