"""BLEU, ROUGE-L and CIDEr-D of a set of captions in one call; of records also how many captions are a reference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weft.eval.errors import shown
from weft.eval.metrics.alignment import Alignment
from weft.eval.metrics.caption.bleu import bleu_scores, bleu_statistics
from weft.eval.metrics.caption.cider import DocumentFrequency, cider_d
from weft.eval.metrics.caption.ngrams import Array, NgramTable
from weft.eval.metrics.caption.rouge import rouge_l
from weft.eval.metrics.caption.texts import caption_texts
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import FRACTION, ScoreReport, group_means, mean_of, sample_report

OFFICIAL = "coco-caption"
_FEW_IMAGES = 100
_BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


@dataclass(frozen=True, slots=True)
class Measures:
    """What BLEU, ROUGE-L and CIDEr-D need of every image, computed once for scores and for intervals.

    Attributes:
        paired: Which ids were matched.
        candidates: The tokenised captions.
        bleu: Shape `(images, 10)`, see `bleu_statistics`.
        rouge: Shape `(images,)`, fractions.
        cider: Shape `(images,)`, 0 to 10.
    """

    paired: Alignment
    candidates: list[str]
    bleu: Array
    rouge: Array
    cider: Array


def measure(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Sequence[str]],
    *,
    tokenized: bool,
    frequency: DocumentFrequency | None,
    subset: bool,
) -> Measures:
    """Tokenise and measure captions; the arguments and errors are those of `caption_scores`."""
    paired, candidates, groups = caption_texts(predictions, references, tokenized=tokenized, subset=subset)
    table = NgramTable([*candidates, *(text for group in groups for text in group)])
    numbers = np.arange(len(candidates))
    image = np.concatenate([numbers, np.repeat(numbers, [len(group) for group in groups])])
    return Measures(
        paired,
        candidates,
        bleu_statistics(table, image, len(numbers)),
        np.array([rouge_l(text, group) for text, group in zip(candidates, groups, strict=True)]),
        cider_d(table, image, len(numbers), frequency),
    )


def caption_scores(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Sequence[str]],
    *,
    tokenized: bool = False,
    frequency: DocumentFrequency | None = None,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Score captions as the COCO caption evaluation does, without Java.

    Args:
        predictions: Image id to its one caption.
        references: Image id to its reference captions (or one of them as text).
        tokenized: The texts are tokens joined by single spaces already.
        frequency: Document frequencies for CIDEr-D; by default those of the scored references.
        subset: Score only the ids that both sides hold, and say so in the report. CIDEr-D of a subset is not
            that of the whole set: rarity is counted over what is scored.
        groups: Axes over which CIDEr-D is averaged: axis to image id to group name.

    Returns:
        Report with `CIDEr` (which is CIDEr-D, reported under the name that papers use), `Bleu_1` to `Bleu_4`
        and `ROUGE_L` as fractions, CIDEr-D in its own scale of 0 to 10; `percent` is the number papers print.
        Per-sample scores and groups are CIDEr-D.

    Raises:
        ScoreInputError: Ids do not match or an image has no reference.
        ScoreTypeError: A caption is not text.

    Source:
        pycocoevalcap 1.2. METEOR needs Java: `weft.eval.metrics.caption.meteor`.

    Example:
        >>> report = caption_scores({1: "a red cat", 2: "a dog"}, {1: ["a red cat"], 2: ["the dog sleeps"]})
        >>> round(report.scores["ROUGE_L"], 3)
        0.693
    """
    found = measure(predictions, references, tokenized=tokenized, frequency=frequency, subset=subset)
    per_sample: dict[Hashable, float] = dict(zip(found.paired.ids, found.cider.tolist(), strict=True))
    bleu = zip(_BLEU, bleu_scores(found.bleu.sum(axis=0)), strict=True)
    return sample_report(
        "caption_scores",
        OFFICIAL if frequency is None else f"{OFFICIAL}, given document frequencies",
        found.paired,
        {"CIDEr": float(np.mean(found.cider)), **dict(bleu), "ROUGE_L": float(np.mean(found.rouge))},
        per_sample,
        group_means(groups or {}, per_sample),
        unit=FRACTION,
        notes=_notes(found.paired, found.candidates, frequency),
    )


def _notes(paired: Alignment, candidates: list[str], frequency: DocumentFrequency | None) -> tuple[str, ...]:
    notes = ["CIDEr is CIDEr-D (sigma 6, clipped), which papers report as CIDEr"]
    if frequency is None and len(candidates) < _FEW_IMAGES:
        how = ", where every weight is 0" if len(candidates) == 1 else "; it is unstable below 100"
        notes.append(f"CIDEr-D counts rarity over only {len(candidates)} images{how}")
    if paired.missing:
        notes.append("CIDEr-D of a subset differs from that of the whole set")
    empty = [key for key, text in zip(paired.ids, candidates, strict=True) if not text]
    if empty:
        notes.append(f"{len(empty)} captions are empty after tokenising: {shown(empty)}")
    return tuple(notes)


@register_metric("caption", "caption", "conversation", headlines=("CIDEr", *_BLEU, "ROUGE_L", "exact"))
def _of_records(predictions: Mapping[Any, str], records: Sequence[Any], groups: Groups) -> ScoreReport:
    references = {record.id: list(record.references()) for record in records}
    report = caption_scores(predictions, references, groups=groups)
    exact = {
        key: float(predictions[key].lower().split() in [text.lower().split() for text in captions])
        for key, captions in references.items()
    }
    by_group = {f"{axis}: exact": means for axis, means in group_means(groups, exact).items()}
    return replace(
        report,
        scores={**report.scores, "exact": mean_of(exact.values())},
        units={**report.units, "exact": FRACTION},
        groups={**report.groups, **by_group},
    )
