"""Batches: records of one or several tasks as the tensors of a model."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from weft.core.backbone.text_length import tokenised
from weft.data import MediaRef, Record
from weft.data.media.shift import RandomShift
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.visual import DrawnVisual, Visual

IGNORED = -100


@dataclass(frozen=True)
class TextRules:
    """How the texts of one task are written.

    Args:
        prompt: Put before the text, such as `"vqa: "`.
        prompt_at: `start`, or `end` for a prompt that stands behind the text, parted by a blank.
        max_text_tokens: Texts are cut there.
        max_target_tokens: Targets are cut there.
        max_new_tokens: Longest generated answer.
        num_beams: Beams of generation.
        no_repeat_ngram_size: Forbids repeated n-grams in generation; 0 allows them.
        early_stopping: End a search with beams once it has as many answers as beams.
        answers: `drawn` trains on one answer of a question in each epoch; `all` on every one, weighted by the share
            of annotators who gave it.
    """

    prompt: str = ""
    prompt_at: Literal["start", "end"] = "start"
    max_text_tokens: int = 64
    max_target_tokens: int = 64
    max_new_tokens: int = 20
    num_beams: int = 1
    no_repeat_ngram_size: int = 0
    early_stopping: bool = False
    answers: Literal["drawn", "all"] = "drawn"

    def written(self, text: str) -> str:
        """A text with its prompt."""
        return self.prompt + text if self.prompt_at == "start" else f"{text} {self.prompt}".lstrip()


@dataclass(frozen=True)
class Example:
    """What one training row reads and writes.

    Attributes:
        text: What it reads, without the prompt.
        target: What it shall write, or None where nothing is written.
        weight: Weight of its loss, in 0..1.
    """

    text: str
    target: str | None
    weight: float


def example(record: Record, task: str, *, seed: int, epoch: int) -> Example:
    """What a record is to train on in an epoch; drawn from these arguments and nothing else.

    Args:
        record: The record.
        task: Name of its task.
        seed: Seed of the run.
        epoch: The epoch, from 0.
    """
    kind, rng = kind_of([record]), random.Random(f"{seed}/{task}/{record.id}/{epoch}")
    if kind.draw is not None:
        return Example(*kind.draw(record, rng))
    if kind.target is None:
        return Example(kind.text(record), None, 1.0)
    return Example(kind.text(record), *kind.target(record, rng))


@dataclass
class Batches:
    """Makes model inputs.

    Args:
        tokenizer: Any Hugging Face tokenizer.
        visual: Images to inputs.
        rules: Task to its rules.
        seed: Seed of drawn targets and of shifts.
        shift: Moves the pixels of training rows, or None.
        text_length: Length that every text is padded to: what `fixed_text_length` of core says of the
            model. By default the longest text of a batch decides.
    """

    tokenizer: Any
    visual: Visual
    rules: Mapping[str, TextRules]
    seed: int = 0
    shift: RandomShift | None = None
    text_length: int | None = None

    may_drop: ClassVar[bool] = False
    """Whether a batch may hold fewer rows than were drawn."""

    def inputs(self, task: str, records: Sequence[Record]) -> dict[str, Tensor]:
        """What a model reads to answer records of one task.

        Returns:
            `input_ids`, `attention_mask` of shape `(batch, text)`, and the visual inputs.
        """
        return self.mixed([(task, record) for record in records])

    def texts(self, rows: Sequence[tuple[str, Record]]) -> dict[str, Tensor]:
        """The texts of rows alone: `input_ids` and `attention_mask`, both of shape `(batch, text)`."""
        return self._tokens([(task, kind_of([record]).text(record)) for task, record in rows])

    def _tokens(self, texts: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        """Tokens of each task's texts, prompts included."""
        input_ids, mask = self._encoded(
            [self.rules[task].written(text) for task, text in texts],
            [self.rules[task].max_text_tokens for task, _ in texts],
            self.text_length,
        )
        return {"input_ids": input_ids, "attention_mask": mask}

    def _encoded(
        self, texts: Sequence[str | None], limits: Sequence[int], length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and mask of texts, each cut at its own limit."""
        groups = {
            limit: [k for k, own in enumerate(limits) if own == limit] for limit in dict.fromkeys(limits)
        }
        parts = [
            self._tensors(tokenised(self.tokenizer, [texts[k] for k in places], limit, length))
            for limit, places in groups.items()
        ]
        if len(parts) == 1:
            return parts[0]
        longest = max(ids.shape[1] for ids, _ in parts)
        at_left = self.tokenizer.padding_side == "left"
        padded = [
            [
                _padded(part, longest, fill, at_left)
                for part, fill in zip(both, (self.tokenizer.pad_token_id, 0), strict=True)
            ]
            for both in parts
        ]
        order = torch.tensor([place for places in groups.values() for place in places]).argsort()
        input_ids, mask = (torch.cat(own)[order] for own in zip(*padded, strict=True))
        return input_ids, mask

    def _tensors(self, encoded: Any) -> tuple[Tensor, Tensor]:
        # The tokenizer's own tensors take longer to build than the tokens to find: it walks the lists in Python.
        input_ids = torch.tensor(encoded["input_ids"], dtype=torch.long)
        # Tokenizers of models that read padding like words return no mask.
        mask = encoded.get("attention_mask")
        return input_ids, torch.ones_like(input_ids) if mask is None else torch.tensor(mask, dtype=torch.long)

    def images(self, records: Sequence[Record]) -> dict[str, Tensor]:
        """The visual inputs of records alone; see `weft.eval.evaluate.visual`."""
        return self.visual(_alike([record.media_refs() for record in records]))

    def training(self, rows: Sequence[tuple[str, Record]], epoch: int = 0) -> dict[str, Any]:
        """Inputs with what the objective compares them to, for rows of any mixture of tasks.

        Args:
            rows: Task and record of each row. All rows show the same number of images and have one objective.
            epoch: What is drawn differs between epochs and depends on nothing else.

        Returns:
            The inputs of `inputs`; `tasks`, the task of each row; `objective`, its name. For generation
            `labels` (`-100` where nothing is scored) and `weights` of shape `(batch,)`, or of one entry for each
            answer, with their `counts` of shape `(batch,)`, where a task trains on all answers; for a contrastive
            comparison `same_text` and `same_image`, numbers from 0 of shape `(batch,)` that are equal where
            rows show the same, of any batch.

        Raises:
            ScoreInputError: If the rows have several objectives, or other numbers of images.
        """
        objectives = {kind_of([record]).objective for _, record in rows}
        if len(objectives) > 1:
            raise ScoreInputError(
                f"`rows` of one batch must have one objective, but have {' and '.join(sorted(objectives))}. "
                "Draw homogeneous batches: set training.mixing.unit to homogeneous."
            )
        (objective,) = objectives
        drawn = [example(record, task, seed=self.seed, epoch=epoch) for task, record in rows]
        texts = self._tokens([(task, each.text) for (task, _), each in zip(rows, drawn, strict=True)])
        batch: dict[str, Any] = {**texts, **self._drawn_images(rows, drawn, epoch)}
        if self.shift is not None and "pixel_values" in batch:
            batch["pixel_values"] = self._shifted(batch["pixel_values"], self.shift, rows, epoch)
        batch |= self._labels(rows, drawn) if objective == "generation" else _identities(rows)
        batch["tasks"] = [task for task, _ in rows]
        batch["objective"] = objective
        return batch

    def _labels(self, rows: Sequence[tuple[str, Record]], drawn: Sequence[Example]) -> dict[str, Tensor]:
        targets = [
            _all_answers(record) if self.rules[task].answers == "all" else [(each.target, each.weight)]
            for (task, record), each in zip(rows, drawn, strict=True)
        ]
        tokens, mask = self._encoded(
            [text for own in targets for text, _ in own],
            [
                self.rules[task].max_target_tokens
                for (task, _), own in zip(rows, targets, strict=True)
                for _ in own
            ],
        )
        made = {
            "labels": tokens.masked_fill(mask == 0, IGNORED),
            "weights": torch.tensor([weight for own in targets for _, weight in own]),
        }
        if any(self.rules[task].answers == "all" for task, _ in rows):
            made["counts"] = torch.tensor([len(own) for own in targets])
        return made

    def _shifted(
        self, pixels: Tensor, shift: RandomShift, rows: Sequence[tuple[str, Record]], epoch: int
    ) -> Tensor:
        moved = []
        for (task, record), images in zip(rows, pixels.numpy(), strict=True):
            rng = random.Random(f"{self.seed}/{task}/{record.id}/{epoch}/pixels")
            moved.append(np.stack([shift(image, rng) for image in images]))
        return torch.from_numpy(np.stack(moved))

    def _drawn_images(
        self, rows: Sequence[tuple[str, Record]], drawn: Sequence[Example], epoch: int
    ) -> dict[str, Tensor]:
        images = _alike([record.media_refs() for _, record in rows])
        if not isinstance(self.visual, DrawnVisual):
            return self.visual(images)
        names = [f"{self.seed}/{task}/{record.id}/{epoch}/frames" for task, record in rows]
        generators = [random.Random(name) for name in names]
        return self.visual.drawn(images, generators, [each.text for each in drawn])

    def mixed(self, rows: Sequence[tuple[str, Record]]) -> dict[str, Any]:
        """What a model reads to answer records of several tasks, each with its task; as `inputs`."""
        return {**self.texts(rows), **self.images([record for _, record in rows])}


def _alike(images: list[tuple[MediaRef, ...]]) -> list[tuple[MediaRef, ...]]:
    counts = sorted({len(group) for group in images})
    if len(counts) > 1:
        raise ScoreInputError(
            f"`rows` of one batch must show the same number of images, but show {' and '.join(map(str, counts))}. Draw "
            "homogeneous batches: set training.mixing.unit to homogeneous."
        )
    return images


def _padded(values: Tensor, length: int, fill: int, at_left: bool) -> Tensor:
    missing = length - values.shape[1]
    return torch.nn.functional.pad(values, (missing, 0) if at_left else (0, missing), value=fill)


def _all_answers(record: Any) -> list[tuple[str, float]]:
    """Every answer to a question, with the share of annotators who gave it."""
    counts = Counter(record.answers)
    return [(answer, count / counts.total()) for answer, count in counts.items()] or [("", 0.0)]


def _identities(rows: Sequence[tuple[str, Record]]) -> dict[str, Tensor]:
    texts = [kind_of([record]).text(record) for _, record in rows]
    images = [tuple(ref.place for ref in record.media_refs()) for _, record in rows]
    return {"same_text": _numbered(texts), "same_image": _numbered(images)}


def _numbered(values: Iterable[Hashable]) -> Tensor:
    """A number for each value that depends on it alone, so that batches can be compared with earlier ones."""
    digests = [hashlib.sha256(repr(value).encode()).digest()[:8] for value in values]
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests])
