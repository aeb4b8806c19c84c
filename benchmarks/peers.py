"""Training steps of LoRA, bottleneck adapters and Compacter, and of batches that mix tasks, beside peft and adapters.

`python -m benchmarks.peers --adapters PYTHON` writes a file of `results` for each comparison; PYTHON is that of an
environment with `adapters`, whose own transformers is older. Every comparison also runs the floor: the bare frozen
model with gradients flowing to its inputs, once for each environment, the units' matrix products alone, and the
optimiser alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

from benchmarks.measure.results import write
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


def alone(shape: str, method: str, peers: tuple[str, ...], own: str, rounds: int) -> dict[str, Any]:
    """One method of all libraries that have it, with the floor."""
    here = sys.executable
    sides = [side(here, "weft", method, shape), side(here, "bare", method, shape)]
    sides += [side(own if peer == "adapters" else here, peer, method, shape) for peer in peers]
    if "adapters" in peers:
        sides.append(side(own, "bare", method, shape, called="bare of adapters"))
    sides += [side(here, part, method, shape) for part in ("products", "optimiser")]
    rows = in_turns(sides, rounds=rounds, steps=1)
    found = {row["side"]: row["cpu_ms"] for row in rows}
    added = found["products"] + found["optimiser"]
    above = {
        name: round(found[name] - added - found["bare of adapters" if name == "adapters" else "bare"], 2)
        for name in ("weft", *peers)
    }
    return {"shape": shape, "method": method, "rounds": rounds, "sides": rows, "above_floor_ms": above}


def mixed(tasks: int, own: str, rounds: int) -> dict[str, Any]:
    """A batch of so many tasks through bottleneck adapters of each."""
    here, words = (
        sys.executable,
        ("--tasks", str(tasks), "--rows", str(MIXED_ROWS), "--length", str(MIXED_LENGTH)),
    )
    sides = [
        side(here, "weft", "bottleneck", "bart", *words),
        side(here, "bare", "bottleneck", "bart", *words),
        side(own, "bare", "bottleneck", "bart", *words, called="bare of adapters"),
    ]
    if tasks > 1:
        sides += [
            side(own, "adapters", "bottleneck", "bart", *words, called="MultiTask"),
            side(own, "adapters", "bottleneck-split", "bart", *words, called="BatchSplit"),
        ]
    else:
        sides.append(side(own, "adapters", "bottleneck", "bart", *words))
    return {
        "tasks": tasks,
        "rows": MIXED_ROWS,
        "tokens_of_a_row": MIXED_LENGTH,
        "rounds": rounds,
        "sides": in_turns(sides, rounds=rounds, steps=1),
    }


IMPORTS = {
    "torch": "import torch",
    "weft": "from weft.core import attach",
    "peft": "from peft import get_peft_model",
}


def imports(rounds: int) -> dict[str, float]:
    """Milliseconds of processor time of imports, each in fresh processes that take turns: the least of them."""
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, line in IMPORTS.items():
            told = f"{line}; import time; print(time.process_time())"
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert time.perf_counter() > start
            found[name].append(float(done.stdout.splitlines()[-1]))
    return {name: round(1e3 * min(seconds), 1) for name, seconds in found.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", required=True, help="Python of the environment that has adapters")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--print", action="store_true", help="write no file")
    parser.add_argument("--parts", nargs="+", default=["imports", "alone", "mixed"])
    parser.add_argument("--shapes", nargs="+", default=["bart", "clip", "qwen"])
    parser.add_argument("--methods", nargs="+", default=["lora", "bottleneck", "compacter"])
    parser.add_argument("--tasks", nargs="+", type=int, default=TASKS)
    chosen = parser.parse_args()
    kept = not chosen.print
    if "imports" in chosen.parts:
        write("imports", {"milliseconds": imports(3)}, kept=kept)
    if "mixed" in chosen.parts:
        for tasks in chosen.tasks:
            write(f"mixed_{tasks}", mixed(tasks, chosen.adapters, chosen.rounds), kept=kept)
    if "alone" in chosen.parts:
        for shape, method, peers in ALONE:
            if shape in chosen.shapes and method in chosen.methods:
                found = alone(shape, method, peers, chosen.adapters, chosen.rounds)
                write(f"alone_{shape}_{method}", found, kept=kept)


if __name__ == "__main__":
    main()
