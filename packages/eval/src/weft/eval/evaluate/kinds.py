"""What a record asks of a model: its text, its target, and how the answer is read.

One kind for each type of record. A third party adds a kind with `register_kind`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weft.data import Caption, ImageQA, MediaRef, PairBool, Record, VideoMC
from weft.eval.errors import ScoreInputError

Mode = Literal["generate", "true_false", "retrieve", "classify"]


@dataclass(frozen=True)
class Kind:
    """How records of one type become texts.

    Attributes:
        record_type: Type of record, such as "image_qa".
        mode: `generate` writes the answer; `true_false` compares the logits of two words; `retrieve` compares
            the features of text and image; `classify` chooses among the classes of the task.
        text: What the model reads, without the task's prompt.
        target: One answer to train on, and its weight in 0..1. Drawn where a record has several. None where
            nothing is written, because text and image are each other's target.
        metric: The metric of this type if the recipe names none.
        draw: Text, target and weight of one training example, where the text is drawn too. By default the text
            is that of `text`.
        one_answer: The metric where every record has one answer, if it is another.
    """

    record_type: str
    mode: Mode
    text: Callable[[Any], str]
    target: Callable[[Any, random.Random], tuple[str, float]] | None
    metric: str
    draw: Callable[[Any, random.Random], tuple[str, str, float]] | None = None
    one_answer: str | None = None

    @property
    def objective(self) -> str:
        """What is trained: `generation`, a `contrastive` comparison of text and image, or `classification`."""
        return _OBJECTIVES.get(self.mode, "generation")


_OBJECTIVES: dict[Mode, str] = {"retrieve": "contrastive", "classify": "classification"}


def _answer(record: ImageQA, rng: random.Random) -> tuple[str, float]:
    """Draw an answer in proportion to its soft score, as VL-Adapter does; no answer has weight 0."""
    scores = record.soft_targets or dict.fromkeys(record.answers, 1.0)
    if not scores:
        return "", 0.0
    answer = rng.choices(list(scores), list(scores.values()))[0]
    return answer, scores[answer]


def _truth(record: PairBool, rng: random.Random) -> tuple[str, float]:
    return ("true" if record.label else "false"), 0.0 if record.label is None else 1.0


def _given(record: Record, rng: random.Random) -> tuple[str, float]:
    right = record.references()
    return (rng.choice(right), 1.0) if right else ("", 0.0)


def _moment(record: Caption) -> str:
    """What is said in a video, and when; nothing for an image."""
    if record.media.kind == "image":
        return ""
    return " ".join(filter(None, [f"[Subs] {record.subtitles}".strip(), _span(record, record.media)]))


def _choices(record: VideoMC) -> str:
    """Speech, question, time and options, in the order that VL-Adapter writes them."""
    options = " ".join(f"a{k}: {text.strip('. ')}." for k, text in enumerate(record.options))
    said, question = f"[Subs] {record.subtitles}".strip(), f"[Q] {record.question.strip()}"
    return " ".join(filter(None, [said, question, _span(record, record.video), f"[Choices] {options}"]))


def _span(record: Record, video: MediaRef) -> str:
    """The time as the annotations have it, or else the span of the video."""
    if "ts" in record.extra:
        return f"[TS] ({record.extra['ts']})"
    return "" if video.start is None else f"[TS] ({video.start}-{video.end})"


_KINDS: dict[str, Kind] = {}


def register_kind(kind: Kind) -> Kind:
    """Make a kind known for its type of record."""
    _KINDS[kind.record_type] = kind
    return kind


register_kind(Kind("image_qa", "generate", lambda r: r.question, _answer, "vqa", one_answer="exact"))
register_kind(Kind("pair_bool", "true_false", lambda r: r.sentence, _truth, "nlvr"))
register_kind(Kind("caption", "generate", _moment, _given, "caption"))
register_kind(Kind("video_mc", "generate", _choices, _given, "multiple_choice"))
register_kind(Kind("video_qa", "generate", lambda r: r.question, _given, "open_ended"))
register_kind(Kind("conversation", "generate", lambda r: r.asked, _given, "exact"))
register_kind(Kind("classify", "classify", lambda r: "", _given, "classes"))
register_kind(Kind("retrieval", "retrieve", lambda r: r.text, None, "retrieval"))


def kind_of(records: Sequence[Record]) -> Kind:
    """The kind of a split's records.

    Raises:
        ScoreInputError: If the split is empty, or no kind is known for its type.
    """
    if not records:
        raise ScoreInputError(
            "`records` must hold at least one record, but is empty. Check the split and its options."
        )
    record_type = records[0].record_type
    if record_type not in _KINDS:
        raise ScoreInputError(
            f"`records` of type {record_type!r} cannot be read by a model. Known types are "
            f"{', '.join(sorted(_KINDS))}; register another with `register_kind`."
        )
    return _KINDS[record_type]


def metric_of(records: Sequence[Record]) -> str:
    """The metric of records if a recipe names none: that of their type, or of questions with one answer each.

    Raises:
        ScoreInputError: As `kind_of`.
    """
    kind = kind_of(records)
    if kind.one_answer is not None and all(len(getattr(record, "answers", ())) == 1 for record in records):
        return kind.one_answer
    return kind.metric
