"""A reader: how one way of building a model reads rows and answers them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor

from weft.eval.readers.abilities import ABILITIES, Ability
from weft.eval.readers.batch import Batch, Losses
from weft.eval.readers.classes import Classes
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.paired import PairedProcessor
from weft.eval.readers.rows import Row, check_media
from weft.eval.readers.video_frames import FramesRule
from weft.eval.readers.writing import Writing


class Reader(ABC):
    """One way of building a model.

    It holds the model's config and processor, not the model: batches are made where no model is.

    Args:
        config: The model's config.
        processor: What turns texts and pictures into tensors.
        limits: How long a row may be.

    Raises:
        ReaderError: If the model or its processor cannot be read this way.
    """

    name: ClassVar[str]
    decides_early: ClassVar[bool] = False
    """Whether true or false is decided by the first token in which the words differ, and not by the whole words."""
    calls_whole: ClassVar[bool] = True
    """Whether `losses` goes through the model's own `forward`, as wrappers for several processes need."""
    recomputes: ClassVar[bool] = True
    """Whether the model can compute its activations again in the backward pass."""

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        fault = self.fault(config, processor)
        if fault is not None:
            raise ReaderError(
                f"`reader` must fit the model, but {self.name!r} does not fit {title_of(config)}: {fault}. Set reader: "
                "auto, or name another."
            )
        self.config, self.processor, self.limits = config, processor, limits or Limits()
        self.rule = FramesRule()

    @classmethod
    @abstractmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """Why a model of a config and with a processor is not read this way, or None if it is."""

    @classmethod
    def builds(cls, config: Any) -> bool:
        """Whether models of a config are built this way, whatever their processor."""
        return cls.fault(config, None) is None

    @classmethod
    @abstractmethod
    def model_class(cls, config: Any) -> Any:
        """The class that has `from_pretrained` and `from_config` or `_from_config` for a model of this config."""

    @property
    @abstractmethod
    def abilities(self) -> frozenset[Ability]:
        """What this model can do; anything else is refused."""

    @property
    @abstractmethod
    def objective(self) -> str:
        """What is trained: `generation` of the answer, or a `contrastive` comparison of text and picture.

        Rows with classes are trained by `classification`, which is all that some models can.
        """

    @property
    def paired(self) -> bool:
        """Whether the run puts tokenizer and pictures together, as for models without a processor of transformers.

        Texts and answers are then cut at the limits of each row, rows without an answer are learned at weight 0, all
        rows of a batch show equally many pictures, and these may be drawn at random or be stored features.
        """
        return isinstance(self.processor, PairedProcessor)

    @property
    def weighs(self) -> bool:
        """Whether a row may have several answers to learn, each with its weight."""
        return False

    @property
    def keeps_momentum(self) -> bool:
        """Whether training compares with a momentum encoder and a queue of its features, instead of by `losses`."""
        return False

    @property
    def title(self) -> str:
        """What messages call the model."""
        return f"{title_of(self.config)}, read as {self.name!r},"

    def lacking(self, ability: Ability) -> str | None:
        """Why the model cannot do something, or None if it can."""
        if ability in self.abilities:
            return None
        can = " and ".join(text for word, text in ABILITIES.items() if word in self.abilities)
        return f"{self.title} cannot {ABILITIES[ability]}: it can {can}"

    def changed(self, **attributes: Any) -> Self:
        """The same reader with other attributes."""
        other = copy(self)
        vars(other).update(attributes)
        return other

    def with_processor(self, processor: Any) -> Reader:
        """The same reader with another processor, such as one that shows stored features in the place of pictures."""
        return self.changed(processor=processor)

    def limited(self, limits: Limits) -> Reader:
        """The same reader with other limits to the length of a row."""
        return self.changed(limits=limits)

    def showing(self, rule: FramesRule) -> Reader:
        """The same reader, which shows the frames of videos that a rule names.

        Raises:
            ReaderError: If the model is not shown videos, or only of equally many frames.
        """
        raise ReaderError(
            f"`frames` and `fps` must be left out for {self.title} which is not shown videos. Leave them out."
        )

    def check(self, row: Row) -> None:
        """Refuse a row that cannot be read, without opening its pictures or looking at its answer.

        Raises:
            ReaderError: Naming the row.
        """
        check_media(row)

    def answer_length(self, answer: str) -> int:
        """Tokens that an answer becomes, its end included; 0 where nothing is written."""
        return 0

    def least_length(self, row: Row) -> int:
        """Tokens of a row's words and of its answer; its pictures, which are not opened, come on top."""
        words = self.processor.tokenizer(row.text, add_special_tokens=False)["input_ids"]
        return len(words) + self.answer_length(row.answer or "")

    @abstractmethod
    def training(self, rows: Sequence[Row]) -> Batch:
        """A batch to learn from, of rows of any mixture of tasks.

        Raises:
            ReaderError: If nothing in it is learned, or a row breaks a rule; the row is named.
        """

    def _without_others(self, rows: Sequence[Row], fitting: Sequence[int]) -> Batch | None:
        """The batch to learn from of the rows at some places, which names all others; None where there are none."""
        if len(fitting) == len(rows):
            return None
        left_out = tuple(row.name for place, row in enumerate(rows) if place not in fitting)
        return self.training([rows[place] for place in fitting]).without(left_out)

    @abstractmethod
    def asking(self, rows: Sequence[Row]) -> Batch:
        """A batch to be asked, of rows of any mixture of tasks; their answers are not looked at."""

    def losses(self, model: Any, batch: Batch) -> Losses:
        """How unlikely the answers of a training batch are.

        Args:
            model: The model, on the batch's device; a wrapper such as data parallelism may hold it.
            batch: From `training`.
        """
        raise self._refusal("score")

    def row_losses(self, model: Any, batch: Batch) -> Tensor:
        """What training minimises the mean of, shape `(rows,)`; arguments as in `losses`.

        `loss_b = weight_b · mean_t -log p(answer_bt)`, or what a comparison of texts and pictures costs each row.
        """
        losses = self.losses(model, batch).rows
        return losses * batch.weights.to(losses.dtype)

    def likelihoods(self, model: Any, batch: Batch) -> Tensor:
        """Log-likelihood of the answers of a training batch, shape `(rows,)`; arguments as in `losses`."""
        return -self.losses(model, batch).sums

    def generate(self, model: Any, batch: Batch, writing: Writing) -> Tensor:
        """Tokens of written answers without their prompts, shape `(rows, length)`; arguments as in `write`."""
        raise self._refusal("write")

    @final
    def write(self, model: Any, batch: Batch, writing: Writing | None = None) -> list[str]:
        """Written answers, one a row.

        Args:
            model: The model, on the batch's device.
            batch: From `asking`.
            writing: How they are written.
        """
        tokens = self.generate(model, batch, writing or Writing())
        texts = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    @final
    def score(
        self, model: Any, rows: Sequence[Row], candidates: Sequence[Sequence[str]], *, batch_size: int = 32
    ) -> list[list[float]]:
        """Log-likelihood of given answers: minus the loss of each, summed over its tokens.

        Args:
            model: The model.
            rows: Rows to be asked.
            candidates: The answers of each row.
            batch_size: Answers of one pass.

        Returns:
            One number for each candidate of each row.

        Raises:
            ReaderError: If a row has no candidate.
        """
        if "score" not in self.abilities:
            raise self._refusal("score")
        bare = [row.name for row, own in zip(rows, candidates, strict=True) if not own]
        if bare:
            raise ReaderError(
                f"`candidates` must give every row at least one answer, but {bare[0]} has none. Give it some, or leave "
                "it out."
            )
        pairs = [
            replace(row, answer=answer, learn="last")
            for row, own in zip(rows, candidates, strict=True)
            for answer in own
        ]
        found: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(pairs), batch_size):
                batch = self.training(pairs[start : start + batch_size]).beside(model)
                found += self.likelihoods(model, batch).tolist()
        each = iter(found)
        return [[next(each) for _ in own] for own in candidates]

    def choose(
        self,
        model: Any,
        rows: Sequence[Row],
        candidates: Sequence[Sequence[str]],
        *,
        keep: int = 128,
        per_token: bool = False,
        batch_size: int = 32,
    ) -> list[str]:
        """The likeliest of given answers to each row; of equal ones the first.

        Args:
            model: The model.
            rows: Rows to be asked.
            candidates: The answers of each row.
            keep: Answers of a row that are scored whole, by readers that look at how answers begin first; others score
                all.
            per_token: Divide the score by the number of tokens.
            batch_size: Answers of one pass.
        """
        best = []
        scores = self.score(model, rows, candidates, batch_size=batch_size)
        for own, found in zip(candidates, scores, strict=True):
            lengths = [self.answer_length(answer) if per_token else 1 for answer in own]
            best.append(own[max(range(len(own)), key=lambda place: found[place] / lengths[place])])
        return best

    def read_for(self, candidates: Sequence[Sequence[str]]) -> list[int]:
        """Row that each entry of a pass of `choose` belongs to: one for each answer, or for each row."""
        return [row for row, own in enumerate(candidates) for _ in own]

    def embed_texts(self, model: Any, batch: Batch) -> Tensor:
        """Features of texts, of length one, shape `(rows, size)`.

        Args:
            model: The model, on the batch's device.
            batch: From `asking`.
        """
        raise self._refusal("embed")

    def embed_pictures(self, model: Any, batch: Batch) -> Tensor:
        """Features of pictures, of length one, shape `(rows, size)`; arguments as in `embed_texts`."""
        raise self._refusal("embed")

    def match(self, model: Any, batch: Batch) -> Tensor:
        """How much each text belongs to the picture beside it, shape `(rows,)`; arguments as in `embed_texts`."""
        raise self._refusal("match")

    def look(self, model: Any, batch: Batch) -> Any:
        """What `belong` needs of one picture; arguments as in `embed_texts`."""
        raise self._refusal("match")

    def belong(self, model: Any, seen: Any, batch: Batch, features: Tensor | None = None) -> Tensor:
        """How much each of several texts belongs to one picture, shape `(rows,)`.

        Args:
            model: The model, on the batch's device.
            seen: What `look` made of the picture.
            batch: The texts, from `asking`.
            features: What `embed_texts` made of them, where the frames of a video are weighted by their likeness to
                the text; None weights none.
        """
        raise self._refusal("match")

    def class_features(
        self, model: Any, task: str, classes: Classes, *, batch_size: int = 128
    ) -> Tensor | None:
        """What `classify` compares pictures with, of `batch_size` texts a pass; None where a head knows the classes."""
        raise self._refusal("classify")

    def classify(self, model: Any, batch: Batch, features: Tensor | None) -> Tensor:
        """Scores of the classes of the task that all rows are of, shape `(rows, classes)`.

        Args:
            model: The model, on the batch's device.
            batch: From `asking`.
            features: From `class_features`.
        """
        raise self._refusal("classify")

    def with_features(self, model: Any, batch: Batch) -> Batch:
        """The batch with what the vision tower makes of its pictures in their place, to be stored and read instead."""
        raise self._refusal("features")

    def picture_tokens(self, batch: Batch) -> Tensor:
        """Tokens that stand for pictures in each row, shape `(rows,)`, where a model puts features."""
        raise self._refusal("features")

    @property
    def sees_alone(self) -> bool:
        """Whether a picture that is alone in its row is seen otherwise than one among several."""
        return False

    def _refusal(self, ability: Ability) -> ReaderError:
        able = ", ".join(sorted(self.abilities))
        return ReaderError(
            f"`{ability}` must be among what the reader {self.name!r} can do with {title_of(self.config)} ({able}), "
            f"but is not: the model cannot {ABILITIES[ability]}. Choose a model that can."
        )


def title_of(config: Any) -> str:
    """What messages call a model."""
    return f"a model of type {getattr(config, 'model_type', type(config).__name__)}"
