"""A vision model with a linear head for each task: any that transformers loads with `AutoModel` and reads pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from weft.core.composites import ImageClassifier, ImageClassifierConfig
from weft.eval.readers.abilities import Ability
from weft.eval.readers.batch import Batch, Losses, batch_of
from weft.eval.readers.classes import Classes
from weft.eval.readers.classifying import columns, told_apart
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import OneQuestion
from weft.eval.readers.owners import owners
from weft.eval.readers.processor import pictured
from weft.eval.readers.rows import Row


@dataclass(frozen=True)
class PictureProcessor:
    """An image processor in the place of one that reads texts too.

    Args:
        image_processor: Any image processor of transformers.
    """

    image_processor: Any
    tokenizer: Any = None

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the image processor alone.

        Args:
            folder: Where to.
        """
        self.image_processor.save_pretrained(folder)


class ImageClassifierReader(OneQuestion):
    """Tells pictures apart by the classes of their task, which its head for the task scores."""

    name: ClassVar[str] = "image_classifier"
    abilities: frozenset[Ability] = frozenset({"classify"})
    objective = "classification"

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        if not isinstance(processor, PictureProcessor):
            self.processor = PictureProcessor(getattr(processor, "image_processor", processor))

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if not isinstance(config, ImageClassifierConfig):
            return "it has no heads (`backbone.heads` gives an encoder of images some)"
        whole = getattr(processor, "image_processor", processor)
        if not hasattr(whole, "preprocess"):
            return f"its processor ({type(processor).__name__}) does not read pictures"
        return None

    @classmethod
    def builds(cls, config: Any) -> bool:
        """See `Reader.builds`."""
        return isinstance(config, ImageClassifierConfig)

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """`ImageClassifier`."""
        return ImageClassifier

    def least_length(self, row: Row) -> int:
        """Nothing is read as text."""
        return 0

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        order = told_apart(rows)
        if not order:
            raise ReaderError(
                f"`rows` must have classes for {self.title} but {rows[0].name if rows else 'no row'} has none. Train "
                "on records of type 'classify'."
            )
        for task, classes in order:
            self._check_head(task, classes)
        known = dict(order)
        every = [(task, known.get(task) or _unnamed(count)) for task, count in self.config.classes.items()]
        return replace(self.asking(rows), columns=columns(rows, every, texts=False))

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`."""
        self._check(rows)
        inputs = pictured(self.processor, rows)
        owned = owners([len(row.pictures) for row in rows], inputs)
        return batch_of(rows, inputs, objective=self.objective, owners=owned)

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`; each row counts one."""
        assert batch.columns is not None, "made by `training`"
        each = batch.columns.losses(model(**batch.inputs).logits)
        return Losses(each, torch.ones(len(each), device=each.device))

    def class_features(self, model: Any, task: str, classes: Classes, *, batch_size: int = 128) -> None:
        """See `Reader.class_features`: the head knows them."""
        self._check_head(task, classes)

    def classify(self, model: Any, batch: Batch, features: Tensor | None) -> Tensor:
        """See `Reader.classify`."""
        logits: Tensor = model(**batch.inputs).logits
        heads = zip(self.config.classes, logits.split([*self.config.classes.values()], dim=1), strict=True)
        return dict(heads)[batch.tasks[0]]

    def _check_head(self, task: str, classes: Classes) -> None:
        count = self.config.classes.get(task)
        if count != len(classes.names):
            raise ReaderError(
                f"`backbone.heads` must give task {task!r} as many classes as it has ({len(classes.names)}), but gives "
                f"{'none' if count is None else count}. Set backbone.heads.{task}={len(classes.names)}."
            )


def _unnamed(count: int) -> Classes:
    """Classes of a task that no row of a batch is of."""
    return Classes.written([str(place) for place in range(count)], ())


READER = ImageClassifierReader
