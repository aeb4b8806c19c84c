"""What a reader hands to a model, and what comes back: tensors with the rows that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from weft.eval.readers.classes import Columns
from weft.eval.readers.picture_features import PictureFeatures
from weft.eval.readers.rows import Row

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        inputs: What the model reads, by the names of its `forward`.
        names: What messages call each row.
        tasks: Task of each row.
        weights: Weight of each row's loss, shape `(rows,)`; of each answer's where there are `counts`.
        objective: What is trained: `generation`, `contrastive` or `classification`.
        labels: Tokens to learn, -100 elsewhere; None in a batch that is asked.
        positions: Places whose logits are needed, shape `(places,)`, or None where all are.
        owners: Row that each picture belongs to (`images`), each tile that the vision tower sees (`tiles`), and each
            entry of the first dimension of a tensor of pictures, by the tensor's name, as far as it follows. Shape
            `(entries,)`.
        identities: For a comparison `text` and `image`, numbers from 0 that are equal where rows show the same, of any
            batch. Shape `(rows,)`.
        left_out: Names of rows that were too long and dropped by rule.
        features: What takes the place of its pictures, or None where `inputs` holds these.
        counts: Number of answers of each row, shape `(rows,)`; labels and weights have an entry for each. None where
            every row has one.
        columns: What the scores of a classification are of, or None.
        text_tasks: Task of each text, where texts and rows differ in number.
    """

    inputs: dict[str, Tensor]
    names: list[str]
    tasks: list[str]
    weights: Tensor
    objective: str = "generation"
    labels: Tensor | None = None
    positions: Tensor | None = None
    owners: dict[str, Tensor] = field(default_factory=dict)
    identities: dict[str, Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    features: PictureFeatures | None = None
    counts: Tensor | None = None
    columns: Columns | None = None
    text_tasks: tuple[str, ...] = ()

    @property
    def routes(self) -> list[str] | dict[str, list[str]]:
        """What the model is routed by: the task of each row, or of each text and each picture."""
        return {"text": [*self.text_tasks], "vision": self.tasks} if self.text_tasks else self.tasks

    def __len__(self) -> int:
        return len(self.names)

    def without(self, names: tuple[str, ...]) -> Batch:
        """The batch, saying which rows were left out of it."""
        return replace(self, left_out=(*names, *self.left_out))

    def reading(self, features: PictureFeatures) -> Batch:
        """The batch with features in the place of pixels."""
        kept = {name: value for name, value in self.inputs.items() if not name.startswith("pixel_")}
        return replace(self, inputs=kept, features=features)

    def pin_memory(self) -> Batch:
        """The batch in pinned memory, for loaders that copy it to a device."""
        return self._changed(lambda value: value.pin_memory())

    def to(self, device: Any, *, dtype: torch.dtype | None = None, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on a device; owners stay where they are.

        Args:
            device: The device.
            dtype: What pictures are cast to, or None to leave them.
            non_blocking: Whether the copies may continue in the background.
        """

        def moved(value: Tensor) -> Tensor:
            # Numbers of a picture or a video each, such as seconds, keep their precision.
            wanted = dtype if value.is_floating_point() and value.dim() > 1 else None
            return value.to(device, dtype=wanted, non_blocking=non_blocking)

        return self._changed(moved)

    def beside(self, model: Any) -> Batch:
        """The batch on a model's device, its pictures in the type of the model's first weights; see `computed_in`."""
        device = next(model.parameters()).device
        return self.to(device, dtype=computed_in(model), non_blocking=True)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def maybe(value: Tensor | None) -> Tensor | None:
            return None if value is None else change(value)

        return replace(
            self,
            inputs={name: change(value) for name, value in self.inputs.items()},
            labels=maybe(self.labels),
            weights=change(self.weights),
            positions=maybe(self.positions),
            counts=maybe(self.counts),
            identities={name: change(value) for name, value in self.identities.items()},
            features=None if self.features is None else self.features.changed(change),
            columns=None if self.columns is None else self.columns.changed(change),
        )


def computed_in(model: Any) -> torch.dtype:
    """What pictures are cast to for a model: the type of its first weights.

    Args:
        model: The model, which a wrapper such as data parallelism may hold.
    """
    return next(value.dtype for value in model.parameters() if value.is_floating_point())


def batch_of(rows: Sequence[Row], inputs: dict[str, Tensor], **fields: Any) -> Batch:
    """A batch with the names, tasks and weights of its rows; `fields` are others of `Batch`."""
    return Batch(
        inputs=inputs,
        names=[row.name for row in rows],
        tasks=[row.task for row in rows],
        **{"weights": torch.tensor([row.weight for row in rows]), **fields},
    )


def stored(batch: Batch, features: Tensor) -> Batch:
    """A batch that reads features instead of `pixel_values`, of shape `(rows, pictures, tokens, width)`."""
    inputs = {name: value for name, value in batch.inputs.items() if name != "pixel_values"}
    return replace(batch, inputs={**inputs, "visual_features": features})


@dataclass(frozen=True)
class Losses:
    """Negative log-likelihoods of the answers of a batch.

    Attributes:
        sums: That of each row's answer, its end included, shape `(rows,)`.
        counts: Number of tokens of each answer, shape `(rows,)`.
    """

    sums: Tensor
    counts: Tensor

    @property
    def rows(self) -> Tensor:
        """Mean over the tokens of each row, shape `(rows,)`."""
        return self.sums / self.counts.clamp(min=1)

    @property
    def mean(self) -> Tensor:
        """Mean over all tokens of the batch, a scalar."""
        return self.sums.sum() / self.counts.sum()


def token_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Losses:
    """Cross-entropy of each row.

    Args:
        logits: Shape `(rows, places, vocabulary)`; each predicts the label at its place.
        labels: Shape `(rows, places)`, -100 where nothing is scored.
        smoothing: Share of the target that is spread over the vocabulary.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    each = torch.nn.functional.cross_entropy(
        wide.flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=smoothing,
    ).view(labels.shape)
    return Losses(each.sum(1), (labels != IGNORED).sum(1))
