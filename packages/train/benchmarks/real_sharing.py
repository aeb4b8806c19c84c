"""Sharing on pretrained weights: four sets of images at once, by heads on DINOv2-small and by names on a dual encoder.

`python packages/train/benchmarks/real_sharing.py OUTPUT` (`nox -s real -- sharing OUTPUT`) builds both encoders in
OUTPUT, trains the recipes `classification/dinov2` and `classification/names` in every way, seed after seed, and
writes `OUTPUT/real_sharing.json` after each run, so that a second call goes on where the first one ended. Runs, their
tracking store and the Pareto plots lie in OUTPUT too; the recipes say what `$WEFT_DATA` holds.
`results/real_sharing.json` is one such file, of which `scripts/sharing_tables.py` makes the page's tables.

The settings are those of a budget: small images and few steps. The learning rate of each unit, of the linear probe and
of full fine-tuning is searched for each encoder, before the first run that needs it: from the one given here to its
neighbours among `RATES`, until neither neighbour of the best is better on training images that are left out for that.
Every way of sharing a unit has the rate that is best for `single`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import torch
import transformers

from weft.data.processes.atomic import write_text
from weft.eval.compare import Comparison, pareto_plot, to_terminal
from weft.eval.report.predictions import PredictionTable
from weft.train.backbones.packaged.build import build_encoder
from weft.train.cli.console import progress
from weft.train.preflight.tasks import TaskData, load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.run import execute

BUILT = {"dinov2": "dinov2-small", "names": "efficientnet-lite0+minilm"}
"""Recipe of `classification` to the encoder it takes."""

SIDES = {"dinov2": 56, "names": 96}
SIZES = {"shapes": 240}
"""Sets of which only so many test images are asked; theirs come in no order of classes."""

RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Learning rates that are searched, one step up or down at a time."""

SEARCH_SEED = 100
"""Seed of the runs that a rate is chosen by and of the images they are scored on; no run that is reported has it."""

HELD_OUT = 200
"""Images of a task that rates are chosen on, or a fifth of its training images where that is fewer."""

HEADS = 3e-3
"""Learning rate of the heads beside whatever else is trained."""

SHARED = {"down": ["task"], "up": ["task"]}
LOWER = {"dinov2": {"towers": ["vision"], "range": "0-5"}, "names": {"range": "0-5"}}
FROZEN, PROBE, FULL = "frozen", "linear probe", "full fine-tuning"
PLAIN: dict[str, dict[str, tuple[dict[str, Any], float]]] = {
    "dinov2": {PROBE: ({"method": "frozen"}, HEADS), FULL: ({"method": "full"}, 1e-4)},
    "names": {FROZEN: ({"method": "frozen"}, 1e-3), FULL: ({"method": "full"}, 1e-4)},
}
UNITS: dict[str, tuple[dict[str, Any], float]] = {
    "bottleneck": ({"method": "bottleneck", "bottleneck_size": 8}, 1e-3),
    "lora": ({"method": "lora", "rank": 8}, 1e-3),
    "adaptformer": ({"method": "adaptformer", "bottleneck_size": 16}, 1e-3),
    "compacter": ({"method": "compacter", "bottleneck_size": 24, "divisions": 4}, 1e-3),
}
"""What is trained to its method and the learning rate that the search begins with."""

SHARINGS = (("single", "multiple"), ("half", "layers"))
"""Ways of sharing; those that decide most come first, with all their seeds."""

Way = tuple[str, dict[str, Any], float]
Cell = dict[str, Any]


def ways(encoder: str, sharings: tuple[str, ...]) -> Iterator[Way]:
    """Label, method and first learning rate of the runs of an encoder.

    Args:
        encoder: A key of `BUILT`.
        sharings: An entry of `SHARINGS`; runs without units come with the first.
    """
    if sharings == SHARINGS[0]:
        for label, (method, rate) in PLAIN[encoder].items():
            yield label, method, rate
    for unit, (method, rate) in UNITS.items():
        if encoder == "names" and unit == "adaptformer":
            continue  # it reads the residual stream, which EfficientNet's blocks have not throughout
        for sharing in sharings:
            policy: Any = sharing
            if sharing == "layers":
                policy = {"down": [], "up": [], "layers": [{**LOWER[encoder], **SHARED}]}
            yield f"{unit}, {sharing}", {**method, "sharing": policy}, rate


def run(encoder: str, way: Way, seed: int, asked: argparse.Namespace) -> Cell:
    """One training, and its scores on the test images, or on those held out if the seed is that of the search.

    Args:
        encoder: A key of `BUILT`.
        way: From `ways`, with the learning rate to train at.
        seed: Seed of weights and order.
        asked: The arguments; a frozen encoder without heads takes no step, whatever they say.
    """
    label, method, rate = way
    searched = seed == SEARCH_SEED
    heads = encoder == "dinov2"
    full = {"train_full": ["heads"]} if heads else {}
    name = f"{encoder}-{label.replace(', ', '-').replace(' ', '-')}-{f'at-{rate:g}' if searched else seed}"
    overrides = [
        f"name={name}",
        f"label={json.dumps(f'{label} at {rate:g}' if searched else label)}",
        f"backbone.name={asked.output / BUILT[encoder]}",
        f"method={json.dumps({**method, **full})}",
        f"seed={seed}",
        f"output={asked.output / 'runs'}",
        f"training.learning_rate={rate}",
        f"training.steps={asked.steps}",
        f"training.batch_size={asked.batch_size}",
        "training.threads=1",
        f"tracking.store={asked.output / 'mlflow'}",
        f"tracking.experiment={encoder}{' search' if searched else ''}",
        "tracking.model=false",
        *(f"tasks.{task}.data.sizes.test={count}" for task, count in SIZES.items()),
    ]
    if heads:
        side = SIDES[encoder]
        overrides.append(f"backbone.processor.size={json.dumps({'height': side, 'width': side})}")
        if label != PROBE:
            overrides.append(f"training.learning_rates={json.dumps({'heads': HEADS})}")
    recipe = load_recipe(f"classification/{encoder}", overrides)
    began = time.process_time()
    found = execute(
        recipe,
        tasks=held_out(recipe) if searched else None,
        overwrite=recipe.folder.exists(),
        progress=progress(),
    )
    return {
        "encoder": encoder,
        "way": label,
        "seed": seed,
        "steps": asked.steps,
        "batch_size": asked.batch_size,
        "side": SIDES[encoder],
        "learning_rate": rate,
        "trainable": found.trainable,
        "total": found.total,
        "scores": {task: dict(report["scores"]) for task, report in found.reports.items()},
        "test": {task: report["n"] for task, report in found.reports.items()},
        "average": found.scores["average"],
        "cpu_seconds": round(time.process_time() - began, 1),
        "right": {} if searched else {task: right(recipe.folder, task) for task in found.reports},
    }


def held_out(recipe: Recipe) -> dict[str, TaskData]:
    """Training images without some of each task, and these in the place of the test images.

    Args:
        recipe: The recipe of a run.
    """
    found = {}
    for task, data in load_tasks(recipe, ("train",)).items():
        records = data["train"]
        places = random.Random(SEARCH_SEED).sample(range(len(records)), min(HELD_OUT, len(records) // 5))
        kept = sorted({*range(len(records))}.difference(places))
        found[task] = TaskData({"train": records.select(kept), "test": records.select(sorted(places))})
    return found


def right(folder: Path, task: str) -> str:
    """Whether each test image is told right, 1 or 0, in the order of their names.

    Args:
        folder: The folder of a run.
        task: One of its tasks.
    """
    rows = PredictionTable.load(folder / "predictions" / f"{task}.table.jsonl").rows
    return "".join("1" if row.score else "0" for row in sorted(rows, key=lambda row: row.id))


def best_rate(tried: dict[float, float]) -> float:
    """The learning rate with the best average; of several the lowest.

    Args:
        tried: Learning rate to average.
    """
    return max(sorted(tried), key=lambda rate: tried[rate])


def untried(tried: dict[float, float]) -> list[float]:
    """Neighbours of the best learning rate that are to be tried.

    Args:
        tried: Learning rate to average.
    """
    place = RATES.index(best_rate(tried))
    return [rate for rate in RATES[max(0, place - 1) : place + 2] if rate not in tried]


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


class Measurement:
    """What was found so far, kept in a file after each run.

    Args:
        asked: The arguments.

    Raises:
        SystemExit: If the file holds runs that are not to be held against those asked for, or the search's seed is
            asked for.
    """

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.file: Path = asked.output / "real_sharing.json"
        self.found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
        self.found |= {"search": [], "cells": []}
        if self.file.exists():
            self.found = json.loads(self.file.read_text(encoding="utf-8"))
        if SEARCH_SEED in asked.seeds:
            raise SystemExit(
                f"--seeds must not hold {SEARCH_SEED}, by which rates are searched: take others."
            )
        others = {
            (cell["steps"], cell["batch_size"]) for part in ("search", "cells") for cell in self.found[part]
        } - {(asked.steps, asked.batch_size)}
        if others:
            raise SystemExit(
                f"--steps and --batch-size must be those of {self.file}, {others}: take another OUTPUT."
            )

    def measure(self, encoder: str, way: Way, seed: int) -> None:
        """Train one way with one seed, unless that was done, after the search of its rate.

        Args:
            encoder: A key of `BUILT`.
            way: From `ways`.
            seed: The seed.
        """
        label, method, first = way
        if label == FROZEN:
            seed = 0  # nothing of it is drawn
        rate = first if label == FROZEN else self.search(encoder, way)
        cells = self.found["cells"]
        there = [
            cell for cell in cells if (cell["encoder"], cell["way"], cell["seed"]) == (encoder, label, seed)
        ]
        if any(cell["learning_rate"] == rate for cell in there):
            return
        # Those of a search that ended elsewhere are no part of it.
        self.found["cells"] = [cell for cell in cells if cell not in there]
        self.keep("cells", run(encoder, (label, method, rate), seed, self.asked))

    def search(self, encoder: str, way: Way) -> float:
        """The learning rate of a way, found for `single` where it is one of sharing.

        Args:
            encoder: A key of `BUILT`.
            way: From `ways`.
        """
        label, method, first = way
        if "sharing" in method:
            label, method = f"{label.partition(',')[0]}, single", {**method, "sharing": "single"}
        while True:
            tried = {
                cell["learning_rate"]: cell["average"]
                for cell in self.found["search"]
                if (cell["encoder"], cell["way"]) == (encoder, label)
            }
            wanted = untried(tried) if tried else [first]
            if not wanted:
                return best_rate(tried)
            self.keep("search", run(encoder, (label, method, wanted[0]), SEARCH_SEED, self.asked))

    def keep(self, part: str, cell: Cell) -> None:
        """Write a run into the file.

        Args:
            part: `search` or `cells`.
            cell: From `run`.
        """
        self.found[part].append(cell)
        write_text(self.file, json.dumps(self.found, indent=1) + "\n")


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
    asked.output = asked.output.resolve()
    asked.output.mkdir(parents=True, exist_ok=True)
    measurement = Measurement(asked)
    for encoder in asked.encoders:
        build(encoder, asked.output)
    for sharings, seed in product(SHARINGS, asked.seeds):
        # In turn, so that whenever it is ended the encoders are about as far.
        for turn in zip_longest(*([(own, way) for way in ways(own, sharings)] for own in asked.encoders)):
            for encoder, way in filter(None, turn):
                if not asked.ways or way[0] in asked.ways:
                    measurement.measure(encoder, way, seed)
    for encoder in asked.encoders:
        comparison = Comparison.from_mlflow(str(asked.output / "mlflow"), encoder)
        if any(row.trainable for row in comparison.rows):
            pareto_plot(comparison, asked.output / f"{encoder}.png")
        print(to_terminal(comparison))


if __name__ == "__main__":
    main()
