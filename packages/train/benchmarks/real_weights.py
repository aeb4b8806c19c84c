"""The figures of docs/real_weights.md: pretrained encoders out of packages, and few-shot heads on them.

`python packages/train/benchmarks/real_weights.py OUTPUT` (`nox -s real -- measure OUTPUT`) builds the encoders in
OUTPUT, asks how often texts about unseen classes find their vectors, runs `few_shot/real_weights` on each, and writes
`OUTPUT/real_weights.json`. The photos lie in `$WEFT_DATA/clothing`, as `few_shot/clothing` says. Features are kept in
OUTPUT, so that a second call goes on where the first one ended. `results/real_weights.json` is one such file;
`scripts/real_tables.py` makes the page's tables and its plot of it.
"""

from __future__ import annotations

import argparse
import json
import os
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
        running = {job: pool.submit(cells, output, *job) for job in jobs}
        found = {
            name: {
                "unseen": asked.result()[name],
                "cells": [cell for shots in runs for cell in running[name, shots].result()],
            }
            for name, (_, _, runs) in ENCODERS.items()
        }
    return {"torch": torch.__version__, "transformers": transformers.__version__, "encoders": found}


def unseen() -> dict[str, dict[str, float]]:
    """How often texts about unseen classes find their vectors, by encoder and kind of text."""
    return {
        name: unseen_classes(load_parts(size, projection)) for name, (size, projection, _) in ENCODERS.items()
    }


def cells(output: Path, name: str, shots: int) -> list[dict[str, Any]]:
    """Accuracy on the test photos of every head and draw.

    Args:
        output: Folder of encoders, features and runs.
        name: Key of `ENCODERS`.
        shots: Images per class.
    """
    overrides = (
        f"name={name}-K{shots}",
        f"encoder.name={output / name}",
        f"output={output / 'runs'}",
        f"shots=[{shots}]",
        "threads=1",
        "tracking.enabled=false",
    )
    recipe = load_any(RECIPE, [*overrides, *ENCODERS[name][2][shots]])
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
    arguments = parser.parse_args()
    output: Path = arguments.output.resolve()
    write_text(output / "real_weights.json", json.dumps(measure(output, arguments.workers), indent=1) + "\n")


if __name__ == "__main__":
    main()
