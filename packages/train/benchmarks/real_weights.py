"""The figures of docs/real_weights.md: pretrained encoders out of packages, and few-shot heads on them.

`python packages/train/benchmarks/real_weights.py OUTPUT` (`nox -s real -- measure OUTPUT`) builds the encoders in
OUTPUT, asks how often texts about unseen classes find their vectors, runs `few_shot/real_weights` on each, and writes
`OUTPUT/real_weights.json`. The photos lie in `$WEFT_DATA/clothing`, as `few_shot/clothing` says. Features are kept in
OUTPUT, so that a second call goes on where the first one ended. `results/real_weights.json` is one such file;
`scripts/real_tables.py` makes the page's tables and its plot of it. `--few` measures `FEW` alone, and adds it to
the file that is in OUTPUT.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers

from weft.data.processes.atomic import write_text
from weft.train.backbones.packaged.build import build_encoder
from weft.train.backbones.packaged.dual import Projection, load_parts, unseen_classes
from weft.train.cli.console import progress
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.loading import load_any
from weft.train.runs.few_shot.run import execute_few_shot

RECIPE = "few_shot/real_weights"
ENCODERS: dict[str, tuple[int, Projection, dict[int, tuple[str, ...]]]] = {
    "lite0-linear": (0, "linear", {1: (), 4: (), 16: ()}),
    "lite2-linear": (2, "linear", {16: ()}),
    "lite2-kernel": (2, "kernel", {1: ("heads=[{method: zero_shot}]", "seeds=[1]")}),
}
"""Name of an encoder to the size of its tower, its text projection, and images per class with what is set for them."""

FEW = "lite0-linear", 16, "[1, 2, 3]"
"""Encoder, images per class and draws of what takes longer or stands beside the rest: `TEXT_SIDE` and `NAMED`."""

TEXT_SIDE: list[dict[str, Any]] = [
    {"method": "two_sfs", "towers": ["text"], "steps_per_shot": 50},
    {"method": "uniadapter", "towers": ["text"], "steps_per_shot": 50},
    {"method": "mma", "towers": ["text"]},
]
"""Heads that adapt the encoder, as the recipes of their names have them, but for the steps of 2SFS (there 300)."""

CLASS_NAMES = {"longsleeve": "long-sleeve shirt", "t-shirt": "t-shirt"}
"""Names of two classes with which photos are told apart better than with those of the recipe."""

NAMED: list[dict[str, Any]] = [
    {"method": name} for name in ("zero_shot", "tip_adapter", "tip_adapter_f", "xmadapter")
]


def measure(output: Path, workers: int) -> dict[str, Any]:
    """Build, ask and run, and give what was found.

    Args:
        output: Folder of encoders, features and runs.
        workers: Processes that run at a time.
    """
    for name, (size, projection, _) in ENCODERS.items():
        if not (output / name).exists():
            build_encoder(f"efficientnet-lite{size}+minilm", output / name, projection)
    jobs = [(name, shots) for name, (_, _, runs) in ENCODERS.items() for shots in runs]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        asked = pool.submit(unseen)
        running = {job: pool.submit(cells, output, *job, ENCODERS[job[0]][2][job[1]]) for job in jobs}
        found = {
            name: {
                "unseen": asked.result()[name],
                "cells": [cell for shots in runs for cell in running[name, shots].result()],
            }
            for name, (_, _, runs) in ENCODERS.items()
        }
    found[FEW[0]] |= few(output)
    return {"torch": torch.__version__, "transformers": transformers.__version__, "encoders": found}


def few(output: Path) -> dict[str, Any]:
    """Heads that adapt the text side, and heads with other names of the classes, on a few draws.

    Args:
        output: Folder of encoders, features and runs.
    """
    name, shots, seeds = FEW
    runs = {
        "text_side": [f"heads={json.dumps(TEXT_SIDE)}"],
        "named": [f"heads={json.dumps(NAMED)}", f"data.class_names={json.dumps(CLASS_NAMES)}"],
    }
    return {
        title: cells(output, name, shots, [f"seeds={seeds}", f"name={title}", *overrides])
        for title, overrides in runs.items()
    }


def unseen() -> dict[str, dict[str, float]]:
    """How often texts about unseen classes find their vectors, by encoder and kind of text."""
    return {
        name: unseen_classes(load_parts(size, projection)) for name, (size, projection, _) in ENCODERS.items()
    }


def cells(output: Path, name: str, shots: int, changed: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy on the test photos of every head and draw.

    Args:
        output: Folder of encoders, features and runs.
        name: Key of `ENCODERS`.
        shots: Images per class.
        changed: What the recipe is changed by.
    """
    overrides = (
        f"name={name}-K{shots}",
        f"encoder.name={output / name}",
        f"output={output / 'runs'}",
        f"shots=[{shots}]",
        "threads=1",
        "tracking.enabled=false",
    )
    recipe = load_any(RECIPE, [*overrides, *changed])
    assert isinstance(recipe, FewShotRecipe)
    comparison = execute_few_shot(recipe, overwrite=recipe.folder.exists(), progress=progress())
    return [
        {"head": cell.head, "shots": cell.shots, "seed": cell.seed, "accuracy": cell.accuracies["test"]}
        for cell in comparison.cells
    ]


def main() -> None:
    """Read the arguments, measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="folder of encoders, features, runs and the result")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--few", action="store_true", help="measure what has few draws alone")
    arguments = parser.parse_args()
    output: Path = arguments.output.resolve()
    file = output / "real_weights.json"
    if arguments.few:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["encoders"][FEW[0]] |= few(output)
    else:
        found = measure(output, arguments.workers)
    write_text(file, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
