"""Training steps of LoRA, bottleneck adapters and Compacter, and of batches that mix tasks, beside peft and adapters.

Every comparison also runs the floor: the bare frozen model with gradients flowing to its inputs, once for each
environment (that of `adapters` has an older transformers), the units' matrix products alone, and the optimiser alone.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.measure.options import Measure, Options
from benchmarks.measure.sides import ROOT, Side, in_turns

ALONE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("bart", "lora", ("peft", "adapters")),
    ("bart", "bottleneck", ("adapters",)),
    ("bart", "compacter", ("adapters",)),
    ("clip", "lora", ("peft", "adapters")),
    ("clip", "bottleneck", ("adapters",)),
    ("clip", "compacter", ("adapters",)),
    ("qwen", "lora", ("peft",)),
)
"""Shape, method, and who else has it."""

TASKS = (1, 4, 16, 64)
MIXED_ROWS, MIXED_LENGTH = 64, 4


def side(python: str, library: str, method: str, shape: str, *words: str, called: str | None = None) -> Side:
    """A side of a comparison."""
    return Side(called or library, [python, "-m", "benchmarks.peer_side", library, method, shape, *words])


def alone(options: Options, *, shape: str, method: str, peers: tuple[str, ...]) -> dict[str, Any]:
    """One method of all libraries that have it, with the floor."""
    here, own = sys.executable, options.adapters
    peers = tuple(peer for peer in peers if peer != "adapters" or own)
    sides = [side(here, "weft", method, shape), side(here, "bare", method, shape)]
    sides += [side(own if own and peer == "adapters" else here, peer, method, shape) for peer in peers]
    if own and "adapters" in peers:
        sides.append(side(own, "bare", method, shape, called="bare of adapters"))
    sides += [side(here, part, method, shape) for part in ("products", "optimiser")]
    rows = in_turns(sides, rounds=options.rounds, steps=1)
    found = {row["side"]: row["cpu_ms"] for row in rows}
    added = found["products"] + found["optimiser"]
    above = {
        name: round(found[name] - added - found["bare of adapters" if name == "adapters" else "bare"], 2)
        for name in ("weft", *peers)
    }
    return {
        "shape": shape,
        "method": method,
        "rounds": options.rounds,
        "sides": rows,
        "above_floor_ms": above,
    }


def mixed(options: Options, *, tasks: int) -> dict[str, Any]:
    """A batch of so many tasks through bottleneck adapters of each."""
    here, own = sys.executable, options.adapters
    words = ("--tasks", str(tasks), "--rows", str(MIXED_ROWS), "--length", str(MIXED_LENGTH))
    sides = [side(here, library, "bottleneck", "bart", *words) for library in ("weft", "bare")]
    if own:
        sides.append(side(own, "bare", "bottleneck", "bart", *words, called="bare of adapters"))
    if own and tasks > 1:
        sides += [
            side(own, "adapters", "bottleneck", "bart", *words, called="MultiTask"),
            side(own, "adapters", "bottleneck-split", "bart", *words, called="BatchSplit"),
        ]
    elif own:
        sides.append(side(own, "adapters", "bottleneck", "bart", *words))
    return {
        "tasks": tasks,
        "rows": MIXED_ROWS,
        "tokens_of_a_row": MIXED_LENGTH,
        "rounds": options.rounds,
        "sides": in_turns(sides, rounds=options.rounds, steps=1),
    }


IMPORTS = {
    "torch": "import torch",
    "weft": "from weft.core import attach",
    "peft": "from peft import get_peft_model",
}


def imports(options: Options) -> dict[str, Any]:
    """Milliseconds of processor time of imports, each in fresh processes that take turns: their medians."""
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    rounds = min(options.rounds, 5)
    for _ in range(rounds):
        for name, line in IMPORTS.items():
            told = f"{line}; import time; print(time.process_time())"
            done = subprocess.run(
                [sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True
            )
            found[name].append(float(done.stdout.splitlines()[-1]))
    times = {name: round(1e3 * statistics.median(seconds), 1) for name, seconds in found.items()}
    return {"rounds": rounds, "milliseconds": times}


CASES: dict[str, Measure] = {
    "imports": imports,
    **{
        f"alone_{shape}_{method}": functools.partial(alone, shape=shape, method=method, peers=peers)
        for shape, method, peers in ALONE
    },
    **{f"mixed_{tasks}": functools.partial(mixed, tasks=tasks) for tasks in TASKS},
}
