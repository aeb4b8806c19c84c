"""Captions turned into the objectives of vision-and-language pre-training.

Source: VL-T5 (Cho et al. 2021), section 4, and BART (Lewis et al. 2020): masked words are restored, captions and images
are matched. Words are masked, not tokens, so that one rule serves every tokenizer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from typing import Any, ClassVar

from weft.data import Caption, ImageQA, PairBool
from weft.eval.evaluate.kinds import Kind, register_kind
from weft.train.errors import RunError
from weft.train.recipe.sections import PretrainingSection

MASKED, MISMATCHED = 0.15, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising(ImageQA):
    """A caption with masked words; the question is the masked caption of evaluation.

    Args:
        captions: Captions of the image; one is drawn for each training example.
        section: How words are masked.
    """

    record_type: ClassVar[str] = "denoising"
    captions: tuple[str, ...]
    section: PretrainingSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching(PairBool):
    """A caption that belongs to its image or not; sentence and label are those of evaluation.

    Args:
        captions: Captions that may be drawn as matching.
        same: Captions of the same image, which are never drawn as others.
        others: Captions of all images, from which those that do not match are drawn.
        section: How often they are.
    """

    record_type: ClassVar[str] = "matching"
    captions: tuple[str, ...]
    same: frozenset[str]
    others: Sequence[str]
    section: PretrainingSection


def pretraining_records(records: Any, section: PretrainingSection) -> Any:
    """Turn a set of captions into as many records of an objective.

    What is drawn for evaluation depends on the record's id alone.

    Raises:
        RunError: If the records are no captions, some are hidden, or all are the same where they must not match.
    """
    for record in records:
        if not isinstance(record, Caption) or not record.captions:
            raise RunError(
                f"`pretraining` needs records with captions, but {record.id!r} is a {type(record).__name__} without. "
                "Take a data set of captions, and a split that has them."
            )
    if section.objective != "matching":
        return records.with_records([_denoising(record, section) for record in records])
    same: dict[str, frozenset[str]] = {}
    for record in records:
        same[record.media_id] = same.get(record.media_id, frozenset()) | set(record.captions)
    others = list(dict.fromkeys(caption for record in records for caption in record.captions))
    for record in records:
        if len(same[record.media_id]) == len(others):
            raise RunError(
                f"`pretraining.objective: matching` needs captions of other images, but {record.id!r} has all there "
                "are. Take more records."
            )
    return records.with_records(
        [_matching(record, same[record.media_id], others, section) for record in records]
    )


def mask_words(text: str, rng: random.Random, rate: float, mask: str) -> str:
    """Replace a share of words, at least one.

    >>> mask_words("a red ball on a box", random.Random(0), 0.3, "<mask>")
    'a red ball <mask> a <mask>'
    """
    words = text.split()
    chosen = _chosen(words, rng, rate)
    return " ".join(mask if k in chosen else word for k, word in enumerate(words))


def mask_spans(text: str, rng: random.Random, rate: float) -> tuple[str, str]:
    """Replace spans of words by sentinels; also give the sentinels, each with its words.

    >>> mask_spans("a red ball on a box", random.Random(0), 0.3)
    ('a red ball <extra_id_0> a <extra_id_1>', '<extra_id_0> on <extra_id_1> box')
    """
    words = text.split()
    chosen, sentinels = _chosen(words, rng, rate), (f"<extra_id_{number}>" for number in count())
    shown: list[str] = []
    hidden: list[str] = []
    for is_hidden, places in groupby(range(len(words)), chosen.__contains__):
        span = [words[place] for place in places]
        if is_hidden:
            shown.append(next(sentinels))
            hidden += [shown[-1], *span]
        else:
            shown += span
    return " ".join(shown), " ".join(hidden)


def _chosen(words: Sequence[str], rng: random.Random, rate: float) -> set[int]:
    return set(rng.sample(range(len(words)), max(1, round(rate * len(words))))) if words else set()


def _corrupted(text: str, section: PretrainingSection, rng: random.Random) -> tuple[str, str]:
    rate = section.rate or MASKED
    if section.objective == "denoising":
        return mask_words(text, rng, rate, section.mask), text
    return mask_spans(text, rng, rate)


def _denoising(record: Caption, section: PretrainingSection) -> Denoising:
    text, target = _corrupted(record.captions[0], section, random.Random(record.id))
    return Denoising(
        id=record.id,
        extra=record.extra,
        image=record.media,
        image_id=record.media_id,
        question=text,
        answers=(target,),
        captions=record.captions,
        section=section,
    )


def _matching(
    record: Caption, same: frozenset[str], others: Sequence[str], section: PretrainingSection
) -> Matching:
    made = Matching(
        id=record.id,
        extra=record.extra,
        images=(record.media,),
        group_id=record.id,
        sentence="",
        captions=record.captions,
        same=same,
        others=others,
        section=section,
    )
    sentence, label, _ = _pair(made, random.Random(record.id))
    return replace(made, sentence=sentence, label=label == "true")


def _restored(record: Denoising, rng: random.Random) -> tuple[str, str, float]:
    return (*_corrupted(rng.choice(record.captions), record.section, rng), 1.0)


def _pair(record: Matching, rng: random.Random) -> tuple[str, str, float]:
    if rng.random() >= (record.section.rate or MISMATCHED):
        return rng.choice(record.captions), "true", 1.0
    while (caption := rng.choice(record.others)) in record.same:
        pass
    return caption, "false", 1.0


def _target(draw: Callable[[Any, random.Random], tuple[str, str, float]]) -> Any:
    """What is written, and its weight, of what is drawn."""
    return lambda record, rng: draw(record, rng)[1:]


# The kinds of these records: exact restoration, and the share of right judgements.
register_kind(Kind("denoising", "generate", lambda r: r.question, _target(_restored), "gqa", _restored))
register_kind(Kind("matching", "true_false", lambda r: r.sentence, _target(_pair), "nlvr", _pair))
