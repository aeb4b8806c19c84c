"""Seconds per step: weft's trainer against a bare `transformers.Trainer` over the same model and the same batches."""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from weft.core import attach
from weft.eval.readers import Reader
from weft.train.backbones.loading import load_backbone
from weft.train.engine.loading import Collate, EpochRows, TaskLoader, TaskRows
from weft.train.engine.schedule import make_mixture
from weft.train.engine.trainer import MultiTaskTrainer, training_arguments
from weft.train.objectives import objectives_of
from weft.train.objectives.by_reader import ByReader
from weft.train.output.progress import Progress
from weft.train.preflight.tasks import load_tasks, sizes_of
from weft.train.recipe.loading import load_recipe
from weft.train.runs.open_session import make_batches, make_visual


class Clock(TrainerCallback):
    """Remembers when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Look at the clock."""
        self.times.append(time.perf_counter())

    def median(self, skip: int) -> float:
        """Median seconds of the steps after the first few."""
        return statistics.median(
            b - a for a, b in zip(self.times[skip:], self.times[skip + 1 :], strict=False)
        )


class Bare(Trainer):
    """The least that the same batches need: a loader and a loss."""

    loader: DataLoader[Any]
    reader: Reader

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The loader as it is."""
        return self.loader

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The mean of the batch."""
        with model.route(tasks=inputs["tasks"]):
            return ByReader(self.reader)(model, inputs).mean()


def main() -> None:
    """Measure in turns and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe("demo/single_adapter", [f"output={folder}", f"training.steps={arguments.steps}"])
        torch.set_num_threads(1)
        tasks = load_tasks(recipe, ("train",))
        backbone = load_backbone(recipe.backbone)
        model: Any = attach(backbone.model, recipe.method, list(recipe.tasks))
        batches = make_batches(recipe, backbone, make_visual(recipe, backbone, tasks, Progress()))
        records = {name: data["train"] for name, data in tasks.items()}
        options = training_arguments(recipe.training, Path(folder) / "run", seed=0, steps=arguments.steps)

        def weft() -> float:
            clock = Clock()
            mixture = make_mixture(recipe, sizes_of(tasks))
            MultiTaskTrainer(
                model,
                options,
                records=records,
                mixture=mixture,
                batches=batches,
                section=recipe.training,
                callbacks=[clock],
                objectives=objectives_of(model, recipe.training, recipe.training.batch_size, batches.reader),
            ).train()
            return clock.median(5)

        def bare() -> float:
            clock, rows = Clock(), TaskRows(records)
            trainer = Bare(model, options, train_dataset=rows, callbacks=[clock])
            trainer.remove_callback(PrinterCallback)
            trainer.remove_callback(ProgressCallback)
            trainer.model_accepts_loss_kwargs = False
            trainer.floating_point_ops = lambda inputs: 0
            sampler = EpochRows(make_mixture(recipe, sizes_of(tasks)), recipe.training.batch_size)
            trainer.loader, trainer.reader = TaskLoader(rows, sampler, Collate(batches)), batches.reader
            trainer.train()
            return clock.median(5)

        pairs = [(weft(), bare()) for _ in range(arguments.rounds)]
    ours, theirs = (min(side) for side in zip(*pairs, strict=True))
    sys.stdout.write(
        f"weft {1000 * ours:.1f} ms, bare Trainer {1000 * theirs:.1f} ms, ratio {ours / theirs:.3f}\n"
    )


if __name__ == "__main__":
    main()
