"""Batches of models that a reader reads: records worded, trained on and asked through the reader alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from weft.data import Record
from weft.eval.evaluate.inputs import TextRules, all_answers, example
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.stored_pictures import StoredPictures, with_parts
from weft.eval.readers import Batch, Limits, Reader, Row, Turn, Wording, Writing
from weft.eval.readers.classes import Classes
from weft.eval.readers.rows import decoded
from weft.eval.readers.video_frames import FramesRule, is_video

TRUTHS = ("false", "true")  # of equal ones the first
_GREY = (127, 127, 127)


@dataclass
class ReaderBatches:
    """Words the records of tasks, and hands them to a reader.

    Args:
        reader: The reader.
        rules: Task to its rules; only models without a processor of transformers have texts and answers cut by them.
        wordings: Task to its words.
        seed: Seed of drawn targets.
        limits: How long a row to train on may be. Rows that are asked have no limit.
        blank: Show a grey picture in the place of each, to see what language alone can do.
        stored: Features that training reads in the place of pictures, or None.
        classes: Task to its classes, of tasks whose pictures are told apart by such.
    """

    reader: Reader
    rules: Mapping[str, TextRules]
    wordings: Mapping[str, Wording]
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    blank: bool = False
    stored: StoredPictures | None = None
    classes: Mapping[str, Classes] = field(default_factory=dict)

    @property
    def may_drop(self) -> bool:
        """Whether a batch may hold fewer rows than were drawn."""
        return self.limits.too_long == "drop"

    @property
    def asker(self) -> Reader:
        """The reader of rows that are asked, none of which may be left out."""
        return self.reader.limited(Limits(too_long="cut" if self.limits.too_long == "cut" else "refuse"))

    def row(self, task: str, record: Record, epoch: int | None = None) -> Row:
        """A record as it is asked, or as it is trained on in an epoch, which decides what is drawn.

        Raises:
            ReaderError: If its words or pictures do not fit `ask`.
        """
        rules, fields = self.rules[task], dict[str, Any]()
        if epoch is None:
            text, target, weight = kind_of([record]).text(record), None, 1.0
        else:
            drawn = example(record, task, seed=self.seed, epoch=epoch)
            text, target, weight = drawn.text, drawn.target, drawn.weight
            fields = {"draw": f"{self.seed}/{task}/{record.id}/{epoch}"}
            if rules.answers == "all":
                fields["answers"] = all_answers(record)
        return self.wordings[task].row(
            record,
            task,
            rules.written(text),
            target,
            weight,
            text_tokens=rules.max_text_tokens,
            answer_tokens=rules.max_target_tokens,
            classes=self.classes.get(task),
            **fields,
        )

    def training(self, rows: Sequence[tuple[str, Record]], epoch: int = 0) -> dict[str, Any]:
        """What an objective needs, for rows of any mixture of tasks.

        Args:
            rows: Task and record of each row.
            epoch: What is drawn differs between epochs and depends on nothing else.

        Returns:
            `batch`, which `weft.eval.readers.Reader.losses` takes, and whose `routes` the model is routed by; `tasks`
            of its rows; `objective`, its name; and `kept`, the places of its rows among those given.

        Raises:
            ReaderError: If nothing in it is learned, or a row breaks a rule; the row is named.
        """
        worded = [self.row(task, record, epoch) for task, record in rows]
        shown = self._shown(worded) if self.stored is None else self.stored.shown(worded)
        batch = self.reader.limited(self.limits).training(shown)
        left = set(batch.left_out)
        kept = [place for place, row in enumerate(worded) if row.name not in left]
        if self.stored is not None:
            batch = self.stored.instead(batch, [worded[place] for place in kept])
        return {"batch": batch, "tasks": batch.tasks, "objective": batch.objective, "kept": kept}

    def answers(self, model: Any, task: str, records: Sequence[Record]) -> list[str]:
        """What a model answers to records of one task: written, or "true" or "false" by likelihood."""
        rows = self._shown([self.row(task, record) for record in records])
        if kind_of(records).mode == "true_false":
            return self.judged(model, rows)
        rules = self.rules[task]
        writing = Writing(rules.max_new_tokens, *rules.search)
        return self.reader.write(model, self.asker.asking(rows).beside(model), writing)

    def judged(self, model: Any, rows: Sequence[Row]) -> list[str]:
        """Whichever is likelier for each row, "true" or "false"."""
        keep = 1 if self.reader.decides_early else len(TRUTHS)
        return self.asker.choose(
            model, rows, [TRUTHS] * len(rows), keep=keep, batch_size=len(TRUTHS) * len(rows)
        )

    def chosen(
        self,
        model: Any,
        task: str,
        records: Sequence[Record],
        candidates: Sequence[Sequence[str]],
        *,
        keep: int = 128,
        per_token: bool = False,
        batch_size: int,
    ) -> list[str]:
        """The likeliest of its own candidates for each record, by `weft.eval.readers.Reader.choose` and its options."""
        rows = self._shown([self.row(task, record) for record in records])
        return self.asker.choose(
            model, rows, candidates, keep=keep, per_token=per_token, batch_size=batch_size
        )

    def text_features(self, model: Any, task: str, records: Sequence[Record]) -> Tensor:
        """Features of the texts of records, of length one, shape `(records, size)`."""
        return self.reader.embed_texts(model, self._texts(model, task, records))

    def picture_features(self, model: Any, task: str, records: Sequence[Record]) -> Tensor:
        """Features of the pictures of records, of length one, shape `(records, size)`."""
        return self.reader.embed_pictures(model, self._pictures(model, task, records))

    def class_features(self, model: Any, task: str, batch_size: int) -> Tensor | None:
        """What `class_scores` compares pictures with; see `weft.eval.readers.Reader.class_features`."""
        return self.asker.class_features(model, task, self.classes[task], batch_size=batch_size)

    def class_scores(
        self, model: Any, task: str, records: Sequence[Record], features: Tensor | None
    ) -> Tensor:
        """Scores of the classes of a task for each record, shape `(records, classes)`, by its `class_features`."""
        return self.reader.classify(model, self._pictures(model, task, records), features)

    def matched(
        self,
        model: Any,
        task: str,
        shown: Record,
        records: Sequence[Record],
        features: Tensor | None,
        size: int,
    ) -> Tensor:
        """How much the texts of records belong to one picture, shape `(records,)`.

        Args:
            model: The model.
            task: Name of the task.
            shown: A record of the picture.
            records: Those of the texts.
            features: See `weft.eval.readers.Reader.belong`.
            size: Texts of one pass.
        """
        seen = self.reader.look(model, self._pictures(model, task, [shown]))
        found = []
        for start in range(0, len(records), size):
            texts = self._texts(model, task, records[start : start + size])
            own = None if features is None else features[start : start + size].to(texts.weights.device)
            found.append(self.reader.belong(model, seen, texts, own))
        return torch.cat(found)

    def _texts(self, model: Any, task: str, records: Sequence[Record]) -> Batch:
        rows = [self.row(task, record) for record in records]
        alone = [replace(row, turns=(Turn("user", (row.text,)),)) for row in rows]
        return self.asker.asking(alone).beside(model)

    def _pictures(self, model: Any, task: str, records: Sequence[Record]) -> Batch:
        rows = self._shown([self.row(task, record) for record in records])
        alone = [replace(row, turns=(Turn("user", row.pictures),)) for row in rows]
        return self.asker.asking(alone).beside(model)

    def _shown(self, rows: Sequence[Row]) -> Sequence[Row]:
        return [_blanked(row, self.reader.rule) for row in rows] if self.blank else rows


def _blanked(row: Row, rule: FramesRule) -> Row:
    """A row whose pictures and videos are grey, each of the size that it has."""
    from PIL import Image

    stills = iter(decoded(row, videos=True))
    grey = iter(
        [
            rule.film(part).grey() if is_video(part) else Image.new("RGB", next(stills).size, _GREY)
            for part in row.pictures
        ]
    )
    return with_parts(row, lambda part: part if isinstance(part, str) else next(grey))
