"""The loop that all trained heads share: few samples, few parameters, the best epoch kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.samples import Samples

Loss = Callable[[Tensor, Tensor], Tensor]


class TrainingOptions(BaseModel):
    """How a head is trained; heads derive their configuration from it and set the defaults of their paper.

    Args:
        optimizer: The optimiser.
        learning_rate: Its peak rate; it falls to zero along a cosine over all steps.
        weight_decay: Decoupled for AdamW, else added to the gradient.
        epsilon: Epsilon of Adam and AdamW.
        momentum: Momentum of SGD.
        epochs: Passes over the samples; each takes one random view of each.
        batch_size: Samples of one step.
        warmup_epochs: First epochs, at the constant rate of `warmup_rate`.
        warmup_rate: Rate of the warm-up.
        select_epoch: Keep the weights of the epoch that is best on the validation samples, or those of the start; else
            the last. With `selected_on="paper"` the start is none of them.
        steps_per_shot: Steps for each sample of a class, instead of `epochs`; the last epoch may then be cut short.
    """

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    epsilon: float = Field(default=1e-8, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    epochs: int = Field(default=20, ge=0)
    batch_size: int = Field(default=256, gt=0)
    warmup_epochs: int = Field(default=0, ge=0)
    warmup_rate: float = Field(default=1e-5, gt=0)
    select_epoch: bool = True
    steps_per_shot: int | None = Field(default=None, ge=0)

    def make_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of some parameters."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
            )
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, self.learning_rate, eps=self.epsilon, weight_decay=self.weight_decay)

    def steps(self, num_samples: int, num_classes: int) -> int:
        """Steps of a training on some samples."""
        if self.steps_per_shot is None:
            return self.epochs * math.ceil(num_samples / self.batch_size)
        return round(self.steps_per_shot * num_samples / num_classes)

    def rate_factor(self, step: int, steps_per_epoch: int, total: int) -> float:
        """Share of the peak rate at a step of `total`."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.warmup_rate / self.learning_rate
        return 0.5 * (1 + math.cos(math.pi * min(step, total) / max(1, total)))


class TrainedHead(FewShotHead):
    """A head all of whose parameters are trained by the cross-entropy of its scores."""

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train all parameters."""
        train_head(self, [*self.parameters()], samples, self.config, validation=validation, seed=seed)


def train_head(
    head: FewShotHead,
    parameters: Sequence[nn.Parameter],
    samples: Samples,
    options: TrainingOptions,
    *,
    validation: Samples | None,
    seed: int,
    loss: Loss | None = None,
) -> None:
    """Train some parameters of a head on its samples.

    Args:
        head: The head.
        parameters: What is trained; nothing else changes.
        samples: Training samples.
        options: Optimiser, rate, epochs.
        validation: Samples that choose the epoch, of which the start is one: the most accurate one, and among those the
            one of least cross-entropy, or the other way round (`select_by`). None keeps the last epoch.
        seed: Seed of order and views.
        loss: Features and labels of a batch to its loss; cross-entropy of the logits by default.
    """
    loss = loss or (lambda features, labels: functional.cross_entropy(head.scores(features), labels))
    generator = torch.Generator().manual_seed(seed)
    each, total = math.ceil(len(samples) / options.batch_size), options.steps(len(samples), head.num_classes)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = options.make_optimizer(parameters)
    # Stepped every iteration.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: options.rate_factor(step, each, total)
    )
    chooser = validation if options.select_epoch else None
    kept: list[Tensor] = []
    best: tuple[float, float] | None = None
    if chooser is not None and head.selected_on != "paper":
        best, kept = _score(head, chooser), _copies(parameters)
    for done in range(0, total, each):
        head.train()
        batches = torch.randperm(len(samples), generator=generator).split(options.batch_size)
        for rows in batches[: total - done]:
            value = loss(*samples.draw(rows, generator))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
        if chooser is not None:
            score = _score(head, chooser)
            if best is None or score > best:
                best, kept = score, _copies(parameters)
    for parameter, value in zip(parameters, kept, strict=bool(kept)):
        parameter.data.copy_(value)
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    head.eval()


def _score(head: FewShotHead, chooser: Samples) -> tuple[float, float]:
    head.eval()
    with torch.no_grad():
        return chooser.score(head.scores(chooser.mean()), head.config.select_by)


def _copies(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]
