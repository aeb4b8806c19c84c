"""Pairs of tasks whose sharing is known: equal, contradicting, agreeing in one tower alone, or noise.

Both tasks see images and texts. The label of either is +1 or -1, by the side of a direction on which the frozen
backbone's embedding is; the answer is how far adaptation moved the embedding along another direction, so that nothing
is known at the start. The second task has the labels of the first, or their opposites, tower by tower; with noise,
labels are drawn independently for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from weft.core import attach, plan
from weft.core.testing import tiny_backbone
from weft.train.runs.share.cells import across_tasks, cells_of
from weft.train.runs.share.gradients import separate_tasks
from weft.train.runs.share.measurement import Measurement, Measuring

Planted = Literal["equal", "contradicting", "vision_alone", "noise"]
TASKS = ("first", "second")
METHOD = {"method": "bottleneck", "bottleneck_size": 4}
_SIGNS = {"equal": (1, 1), "contradicting": (-1, -1), "vision_alone": (1, -1), "noise": (1, 1)}
_TRAINING = 1_000_000  # numbers of batches from here on are for training


class PlantedTasks:
    """A tiny CLIP and two tasks.

    Args:
        planted: How the second task relates to the first.
        seed: Seed of weights, directions, inputs and labels.
        rows: Rows of a batch per task.
    """

    def __init__(self, planted: Planted, seed: int, rows: int = 64) -> None:
        self.planted, self.seed, self.rows = planted, seed, rows
        torch.manual_seed(seed)
        self.model, batch = tiny_backbone("clip")
        self.model.eval()
        self.vocabulary = int(self.model.config.text_config.vocab_size)
        self.length = batch["input_ids"].shape[1]
        self.image = tuple(batch["pixel_values"].shape[1:])
        width = self.model.config.projection_dim
        self.asked, self.taught = torch.randn(2, 2, width, generator=self._generator(-1))
        with torch.no_grad():
            seen = self._embedded(self._inputs(-2, 512))
        self.thresholds = (seen * self.taught).sum(dim=-1).median(dim=0).values
        self.asked /= (seen * self.asked).sum(dim=-1).std(dim=0)[:, None]

    def train(self, steps: int = 4, rate: float = 3e-4) -> None:
        """Adapt the backbone with weights that both tasks share, and train it for a while."""
        attach(self.model, across_tasks(plan(self.model, METHOD, TASKS), shared=True), TASKS)
        optimizer = torch.optim.Adam([v for v in self.model.parameters() if v.requires_grad], lr=rate)
        for step in range(steps):
            optimizer.zero_grad()
            losses, _ = self.losses(self.draw(_TRAINING + step)[0])
            losses.mean().backward()
            optimizer.step()

    def measure(self, batches: int = 24, after: Callable[[int], None] = lambda done: None) -> Measurement:
        """Measure the tasks at the weights that were trained."""
        separate_tasks(self.model)
        measuring = Measuring(
            self.model,
            cells_of(self.model.weft.plan),
            self.draw,
            self.losses,
            batches=batches,
            looks=12,
            rate=3e-4,
        )
        measuring.run(after)
        return measuring.measured()

    def draw(self, batch: int) -> Sequence[Any]:
        """One mixed batch: inputs, labels of both towers, and tasks."""
        inputs = self._inputs(batch, 2 * self.rows)
        if self.planted == "noise":
            labels = torch.randint(0, 2, (2 * self.rows, 2), generator=self._generator(batch, 1)) * 2.0 - 1
        else:
            sides = (self._frozen(inputs) * self.taught).sum(dim=-1)
            labels = torch.where(sides > self.thresholds, 1.0, -1.0)
            labels[self.rows :] *= torch.tensor(_SIGNS[self.planted])
        return [(inputs, labels, [TASKS[0]] * self.rows + [TASKS[1]] * self.rows)]

    def losses(self, piece: Any) -> tuple[Tensor, Sequence[str]]:
        """Logistic losses of both towers, summed for each row."""
        inputs, labels, tasks = piece
        with self.model.route(tasks=tasks):
            moved = self._embedded(inputs) - self._frozen(inputs)
        logits = (moved * self.asked).sum(dim=-1)
        return functional.softplus(-labels * logits).sum(dim=1), tasks

    def _embedded(self, inputs: dict[str, Tensor]) -> Tensor:
        found = self.model(**inputs)
        return torch.stack([found.image_embeds, found.text_embeds], dim=1)

    @torch.no_grad()
    def _frozen(self, inputs: dict[str, Tensor]) -> Tensor:
        with self.model.disable_adapter():
            return self._embedded(inputs)

    def _inputs(self, batch: int, rows: int) -> dict[str, Tensor]:
        generator = self._generator(batch)
        ids = torch.randint(3, self.vocabulary - 3, (rows, self.length), generator=generator)
        ids[:, -1] = self.vocabulary - 1
        colours = torch.randn(rows, self.image[0], 1, 1, generator=generator)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": colours + 0.3 * torch.randn(rows, *self.image, generator=generator),
        }

    def _generator(self, batch: int, stream: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed * 7919 + batch + 10) * 2 + stream)
