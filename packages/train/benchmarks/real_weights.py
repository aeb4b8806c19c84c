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
ENCODERS: dict[str, tuple[int, Projection, tuple[str, ...]]] = {
    "lite0-linear": (0, "linear", ()),
    "lite2-linear": (2, "linear", ("shots=[16]",)),
    "lite2-kernel": (2, "kernel", ("heads=[{method: zero_shot}]", "shots=[1]", "seeds=[1]")),
}
"""Name of an encoder to the size of its tower, its text projection, and what the recipe does differently with it."""


def measure(output: Path) -> dict[str, Any]:
    """Build, ask and run, and give what was found.

    Args:
        output: Folder of encoders, features and runs.
    """
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "encoders": {},
    }
    for name, (size, projection, changes) in ENCODERS.items():
        folder = output / name
        if not folder.exists():
            build_encoder(f"efficientnet-lite{size}+minilm", folder, projection)
        overrides = [
            f"name={name}",
            f"encoder.name={folder}",
            f"output={output / 'runs'}",
            "tracking.enabled=false",
        ]
        recipe = load_any(RECIPE, [*overrides, *changes])
        assert isinstance(recipe, FewShotRecipe)
        comparison = execute_few_shot(recipe, overwrite=recipe.folder.exists(), progress=progress())
        found["encoders"][name] = {
            "unseen": unseen_classes(load_parts(size, projection)),
            "cells": [
                {
                    "head": cell.head,
                    "shots": cell.shots,
                    "seed": cell.seed,
                    "accuracy": cell.accuracies["test"],
                }
                for cell in comparison.cells
            ],
        }
    return found


def main() -> None:
    """Read the arguments, measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="folder of encoders, features, runs and the result")
    output: Path = parser.parse_args().output.resolve()
    write_text(output / "real_weights.json", json.dumps(measure(output), indent=1) + "\n")


if __name__ == "__main__":
    main()
