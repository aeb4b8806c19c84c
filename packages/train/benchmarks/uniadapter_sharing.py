"""UniAdapter against separate adapters of the same size, full fine-tuning and a linear probe, on rendered pairs.

`python packages/train/benchmarks/uniadapter_sharing.py` pretrains a tiny BLIP once (`testing.rendered_pairs`), adapts
it in every way at every learning rate with seed 0, and repeats the rate that finds most of 100 validation pairs with
the other seeds. One line of JSON per training goes to `results/uniadapter_sharing.jsonl`, whose `test` are other 100
pairs; both sets have captions that no training has. A seed is that of the new weights, the order of the pairs and the
negatives; the pretrained weights are the same in all.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from weft.core import attach, plan
from weft.train.testing.rendered_pairs import pretrained_blip, recalls, rendered_pairs, train, what_and_where

RESULTS = Path(__file__).parent / "results" / "uniadapter_sharing.jsonl"
HEADS = ["projector", "head"]
UNIT = {"method": "uniadapter", "scale": 1.0, "train_full": HEADS}
OWN = ["task", "stack"]  # a down-projection and an up-projection of each modality's own
ADAPTERS: dict[str, dict[str, Any]] = {
    "unified": {**UNIT, "bottleneck_size": 48},
    "separate": {**UNIT, "bottleneck_size": 31, "sharing": {"down": OWN, "up": OWN}, "reuse_text_up": False},
}
CONFIGS = {
    **ADAPTERS,
    "linear probe": {"method": "frozen", "train_full": HEADS},
    "full fine-tuning": {"method": "full"},
}
RATES = {
    "unified": (3e-3, 1e-2, 3e-2),
    "separate": (3e-3, 1e-2, 3e-2),
    "linear probe": (3e-3, 1e-2, 3e-2),
    "full fine-tuning": (3e-4, 1e-3),
}


class Comparison:
    """The pretrained model and the pairs that every training has in common.

    Args:
        steps: Optimiser steps of every training.
        pretraining: Those of the pretraining.
    """

    def __init__(self, steps: int, pretraining: int) -> None:
        self.steps = steps
        self.backbone, on_source = pretrained_blip(0, steps=pretraining)
        self.test = rendered_pairs("target-test", 100, what_and_where, distinct=True)
        avoid = self.test.captions
        self.validation = rendered_pairs("target-validation", 100, what_and_where, distinct=True, avoid=avoid)
        avoid += self.validation.captions
        self.pairs = rendered_pairs("target", 4000, what_and_where, avoid=avoid)
        frozen = attach(copy.deepcopy(self.backbone), {"method": "frozen"})
        self.frozen = {"way": "frozen", "source": on_source, "test": rounded(recalls(frozen, self.test))}

    def run(self, way: str, rate: float, seed: int) -> dict[str, Any]:
        """One training, and what it finds."""
        torch.manual_seed(seed)
        model = attach(copy.deepcopy(self.backbone), CONFIGS[way])
        started = time.process_time()
        train(model, self.pairs, steps=self.steps, learning_rate=rate, seed=seed)
        seconds = time.process_time() - started
        return {
            "way": way,
            "trainable": model.weft.plan.trainable_parameters,
            "rate": rate,
            "seed": seed,
            "steps": self.steps,
            "cpu_seconds": round(seconds, 1),
            "validation": rounded(recalls(model, self.validation)),
            "test": rounded(recalls(model, self.test)),
        }


def main() -> None:
    """Print the sizes, search the rates, repeat the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=250, help="optimiser steps of every training")
    parser.add_argument("--pretraining", type=int, default=450, help="optimiser steps of the pretraining")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of every way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    comparison = Comparison(options.steps, options.pretraining)
    for way, config in CONFIGS.items():
        count = plan(comparison.backbone, config).trainable_parameters
        sys.stdout.write(f"{way:16} {count:>8,} parameters trained\n")
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", encoding="utf-8") as file:

        def keep(row: dict[str, Any]) -> dict[str, Any]:
            file.write(json.dumps(row) + "\n")
            file.flush()
            sys.stdout.write(f"{json.dumps(row)}\n")
            sys.stdout.flush()
            return row

        keep(comparison.frozen)
        for way, rates in RATES.items():
            tried = [keep(comparison.run(way, rate, 0)) for rate in rates]
            best = max(tried, key=lambda row: mean(row["validation"].values()))
            repeated = [keep(comparison.run(way, best["rate"], seed)) for seed in range(1, options.seeds)]
            sys.stdout.write(summary([best, *repeated]) + "\n")


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Scores without what binary fractions leave behind."""
    return {name: round(value, 2) for name, value in scores.items()}


def summary(rows: list[dict[str, Any]]) -> str:
    """R@1 on the test pairs, of both directions together: mean over the seeds, and every seed's."""
    text = f"{rows[0]['way']}, rate {rows[0]['rate']:g}:"
    for stage in ("similarity", "matched"):
        each = [mean(row["test"][f"{stage} {way}"] for way in ("i2t", "t2i")) for row in rows]
        text += f" {stage} {mean(each):.1f} ({', '.join(f'{value:.1f}' for value in each)})"
    return text


if __name__ == "__main__":
    main()
