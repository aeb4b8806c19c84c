"""Sharing on pretrained weights: four sets of images at once, by heads on DINOv2-small and by names on a dual encoder.

`python packages/train/benchmarks/real_sharing.py OUTPUT` (`nox -s real -- sharing OUTPUT`) builds both encoders in
OUTPUT, trains the recipes `classification/dinov2` and `classification/names` in every way, seed after seed, and
writes `OUTPUT/real_sharing.json` after each run, so that a second call goes on where the first one ended. Runs, their
tracking store and the Pareto plots lie in OUTPUT too; the recipes say what `$WEFT_DATA` holds.
`results/real_sharing.json` is one such file, of which `scripts/sharing_tables.py` makes the page's tables.

The settings are those of a budget: small images, few steps, one learning rate for each method, none of them searched.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
import transformers

from weft.data.processes.atomic import write_text
from weft.eval.compare import Comparison, pareto_plot, to_terminal
from weft.train.backbones.packaged.build import build_encoder
from weft.train.cli.console import progress
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute

BUILT = {"dinov2": "dinov2-small", "names": "efficientnet-lite0+minilm"}
"""Recipe of `classification` to the encoder it takes."""

SIDES = {"dinov2": 56, "names": 96}
SIZES = {"shapes": 240}
"""Sets of which only so many test images are asked; theirs come in no order of classes."""

SHARED = {"down": ["task"], "up": ["task"]}
LOWER = {"dinov2": {"towers": ["vision"], "range": "0-5"}, "names": {"range": "0-5"}}
UNITS: dict[str, tuple[dict[str, Any], float]] = {
    "bottleneck": ({"method": "bottleneck", "bottleneck_size": 8}, 1e-3),
    "lora": ({"method": "lora", "rank": 8}, 1e-3),
    "adaptformer": ({"method": "adaptformer", "bottleneck_size": 16}, 1e-3),
    "compacter": ({"method": "compacter", "bottleneck_size": 24, "divisions": 4}, 3e-3),
}
"""Unit to its method and its learning rate."""

HEADS = 3e-3
"""Learning rate of the heads, whatever else is trained."""

PLAIN: dict[str, dict[str, tuple[dict[str, Any], float]]] = {
    "dinov2": {"linear probe": ({"method": "frozen"}, HEADS), "full fine-tuning": ({"method": "full"}, 5e-5)},
    "names": {"frozen": ({"method": "frozen"}, 1e-3), "full fine-tuning": ({"method": "full"}, 5e-5)},
}
SHARINGS = ("single", "multiple", "half", "layers")
Way = tuple[str, dict[str, Any], float]


def ways(encoder: str) -> Iterator[Way]:
    """Label, method and learning rate of every run of an encoder, those that decide most first.

    Args:
        encoder: A key of `BUILT`.
    """
    for label, (method, rate) in PLAIN[encoder].items():
        yield label, method, rate
    for unit, (method, rate) in UNITS.items():
        if encoder == "names" and unit == "adaptformer":
            continue  # it reads the residual stream, which EfficientNet's blocks have not throughout
        for sharing in SHARINGS:
            policy: Any = sharing
            if sharing == "layers":
                policy = {"down": [], "up": [], "layers": [{**LOWER[encoder], **SHARED}]}
            yield f"{unit}, {sharing}", {**method, "sharing": policy}, rate


def run(encoder: str, way: Way, seed: int, output: Path, steps: int, batch_size: int) -> dict[str, Any]:
    """One training, and its scores.

    Args:
        encoder: A key of `BUILT`.
        way: From `ways`.
        seed: Seed of weights and order.
        output: Folder of everything.
        steps: Optimiser steps; frozen encoders without heads take one, which changes nothing.
        batch_size: Rows of a batch.
    """
    label, method, rate = way
    heads = encoder == "dinov2"
    full = {"train_full": ["heads"]} if heads else {}
    overrides = [
        f"name={encoder}-{label.replace(', ', '-').replace(' ', '-')}-{seed}",
        f"label={json.dumps(label)}",
        f"backbone.name={output / BUILT[encoder]}",
        f"method={json.dumps({**method, **full})}",
        f"seed={seed}",
        f"output={output / 'runs'}",
        f"training.learning_rate={rate}",
        f"training.steps={steps}",
        f"training.batch_size={batch_size}",
        "training.threads=1",
        f"tracking.store={output / 'mlflow'}",
        f"tracking.experiment={encoder}",
        "tracking.model=false",
        *(f"tasks.{task}.data.sizes.test={count}" for task, count in SIZES.items()),
    ]
    if heads:
        side = SIDES[encoder]
        overrides.append(f"backbone.processor.size={json.dumps({'height': side, 'width': side})}")
        overrides.append(f"training.learning_rates={json.dumps({'heads': HEADS})}")
    recipe = load_recipe(f"classification/{encoder}", overrides)
    began = time.process_time()
    found = execute(recipe, overwrite=recipe.folder.exists(), progress=progress())
    return {
        "encoder": encoder,
        "way": label,
        "seed": seed,
        "steps": steps,
        "batch_size": batch_size,
        "side": SIDES[encoder],
        "learning_rate": rate,
        "trainable": found.trainable,
        "total": found.total,
        "scores": {task: dict(report["scores"]) for task, report in found.reports.items()},
        "test": {task: report["n"] for task, report in found.reports.items()},
        "average": found.scores["average"],
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def build(encoder: str, output: Path) -> None:
    """Build an encoder, whose own image processor then makes pictures of the side that is measured.

    Args:
        encoder: A key of `BUILT`.
        output: Where it goes.
    """
    folder = output / BUILT[encoder]
    if folder.exists():
        return
    build_encoder(BUILT[encoder], folder)
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["size"] = {"height": SIDES[encoder], "width": SIDES[encoder]}
    write_text(file, json.dumps(settings, indent=2))


def main() -> None:
    """Read the arguments, and measure what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="folder of encoders, runs, the store and the result")
    parser.add_argument("--encoders", nargs="+", choices=BUILT, default=list(BUILT))
    parser.add_argument("--ways", nargs="+", help="labels such as 'lora, single'; by default all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    asked = parser.parse_args()
    output = asked.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    file = output / "real_sharing.json"
    found = {"torch": torch.__version__, "transformers": transformers.__version__, "cells": []}
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
    done = {(cell["encoder"], cell["way"], cell["seed"]) for cell in found["cells"]}
    for encoder in asked.encoders:
        build(encoder, output)
    for seed in asked.seeds:
        # In turn, so that whenever it is ended the encoders are about as far.
        for turn in zip_longest(*([(encoder, way) for way in ways(encoder)] for encoder in asked.encoders)):
            for encoder, way in filter(None, turn):
                if asked.ways and way[0] not in asked.ways:
                    continue
                if (encoder, way[0], seed) not in done:
                    found["cells"].append(run(encoder, way, seed, output, asked.steps, asked.batch_size))
                    write_text(file, json.dumps(found, indent=1) + "\n")
    for encoder in asked.encoders:
        comparison = Comparison.from_mlflow(str(output / "mlflow"), encoder)
        if any(row.trainable for row in comparison.rows):
            pareto_plot(comparison, output / f"{encoder}.png")
        print(to_terminal(comparison))  # noqa: T201  (what it is for)


if __name__ == "__main__":
    main()
