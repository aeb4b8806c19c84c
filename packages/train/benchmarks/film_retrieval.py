"""Retrieval of rendered films, with and without frame-aware attention, and with and without units that see order.

`python packages/train/benchmarks/film_retrieval.py` pretrains a tiny BLIP on still images (`testing.rendered_pairs`),
adapts it to films (`testing.rendered_films`) in four ways with each seed, and writes one line of JSON per training to
`results/film_retrieval.jsonl`. `test` are 100 films, fifty and their reverses, whose captions occur in no training. A
seed is that of the new weights, the order of the films and the negatives; the pretrained weights are the same in all.
Models with frame-aware attention are scored with it in the second stage (`test`) and without (`test_plain`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from weft.core import attach
from weft.train.testing.rendered_films import FRAMES, film_scores, rendered_films
from weft.train.testing.rendered_pairs import pretrained_blip, tiny_blip, train

RESULTS = Path(__file__).parent / "results" / "film_retrieval.jsonl"
HEADS = ["projector", "head"]
UNIADAPTER = {"method": "uniadapter", "bottleneck_size": 48, "scale": 1.0, "train_full": HEADS}
AWARE = {"method": "frame_attention"}
TEMPORAL = {"method": "st_adapter", "frames": FRAMES, "bottleneck_size": 48, "blocks": ["attention", "ffn"]}
WAYS: dict[str, list[dict[str, Any]]] = {
    "uniadapter": [UNIADAPTER],
    "uniadapter, frame-aware": [UNIADAPTER, AWARE],
    "uniadapter and st_adapter": [UNIADAPTER, TEMPORAL],
    "uniadapter and st_adapter, frame-aware": [UNIADAPTER, TEMPORAL, AWARE],
}


class Comparison:
    """The pretrained model and the films that every training has in common.

    Args:
        weights: Those of the pretrained model.
        steps: Optimiser steps of every training.
        rate: Its learning rate.
    """

    def __init__(self, weights: dict[str, torch.Tensor], steps: int, rate: float) -> None:
        self.weights, self.steps, self.rate = weights, steps, rate
        self.test = rendered_films("film-test", 100, distinct=True)
        self.films = rendered_films("film", 4000, avoid=self.test.captions)

    def frozen(self) -> dict[str, Any]:
        """What the pretrained model finds as it is."""
        model = self._model({"method": "frozen"}, seed=0)
        return {"way": "frozen", "test": rounded(film_scores(model, self.test))}

    def run(self, way: str, seed: int) -> dict[str, Any]:
        """One training, and what it finds."""
        methods = WAYS[way]
        model = self._model(methods, seed)
        started = time.process_time()
        train(model, self.films, steps=self.steps, learning_rate=self.rate, together=2, seed=seed)
        seconds = time.process_time() - started
        row: dict[str, Any] = {
            "way": way,
            "trainable": model.weft.plan.trainable_parameters,
            "rate": self.rate,
            "seed": seed,
            "steps": self.steps,
            "cpu_seconds": round(seconds, 1),
            "test": rounded(film_scores(model, self.test, frame_aware=AWARE in methods)),
        }
        if AWARE in methods:
            row["test_plain"] = rounded(film_scores(model, self.test))
        return row

    def _model(self, methods: Any, seed: int) -> Any:
        model = tiny_blip(0)
        model.load_state_dict(self.weights)
        torch.manual_seed(seed)
        return attach(model, methods)


def main() -> None:
    """Train every way with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=700, help="optimiser steps of every training")
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate of every training")
    parser.add_argument("--pretraining", type=int, default=450, help="optimiser steps of the pretraining")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of every way")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone, on_source = pretrained_blip(0, steps=options.pretraining)
    comparison = Comparison(backbone.state_dict(), options.steps, options.rate)
    options.output.parent.mkdir(exist_ok=True)
    with options.output.open("w", encoding="utf-8") as file:

        def keep(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()
            sys.stdout.write(f"{json.dumps(row)}\n")
            sys.stdout.flush()

        keep({**comparison.frozen(), "source": rounded(on_source)})
        for seed in range(options.seeds):
            for way in WAYS:
                keep(comparison.run(way, seed))


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Scores without what binary fractions leave behind."""
    return {name: round(value, 2) for name, value in scores.items()}


if __name__ == "__main__":
    main()
