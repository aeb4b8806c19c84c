"""BLEU, ROUGE-L and CIDEr-D of a set of captions in one call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from weft.eval.errors import shown
from weft.eval.metrics.caption.bleu import bleu_scores
from weft.eval.metrics.caption.cider import DocumentFrequency
from weft.eval.metrics.caption.measures import measure
from weft.eval.metrics.report import FRACTION, ScoreReport, group_means

OFFICIAL = "coco-caption"
_FEW_IMAGES = 100


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
    measures = measure(predictions, references, tokenized=tokenized, frequency=frequency, subset=subset)
    paired = measures.paired
    per_sample: dict[Hashable, float] = dict(zip(paired.ids, measures.cider.tolist(), strict=True))
    scores: dict[str, float | None] = {"CIDEr": float(np.mean(measures.cider))}
    scores |= {
        f"Bleu_{order + 1}": score for order, score in enumerate(bleu_scores(measures.bleu.sum(axis=0)))
    }
    scores["ROUGE_L"] = float(np.mean(measures.rouge))
    return ScoreReport(
        metric="caption_scores",
        variant=OFFICIAL if frequency is None else f"{OFFICIAL}, given document frequencies",
        headline="CIDEr",
        scores=scores,
        units=dict.fromkeys(scores, FRACTION),
        n=len(paired.ids),
        groups=group_means(groups or {}, per_sample),
        per_sample=per_sample,
        missing=paired.missing,
        extra=paired.extra,
        notes=_notes(paired.ids, measures.candidates, frequency, missing=paired.missing),
    )


def _notes(
    ids: list[Hashable], candidates: list[str], frequency: DocumentFrequency | None, *, missing: int
) -> tuple[str, ...]:
    notes = ["CIDEr is CIDEr-D (sigma 6, clipped), which papers report as CIDEr"]
    if frequency is None and len(ids) < _FEW_IMAGES:
        notes.append(
            f"CIDEr-D counts rarity over only {len(ids)} images"
            + (", where every weight is 0" if len(ids) == 1 else "; it is unstable below 100")
        )
    if missing:
        notes.append("CIDEr-D of a subset differs from that of the whole set")
    empty = [key for key, text in zip(ids, candidates, strict=True) if not text]
    if empty:
        notes.append(f"{len(empty)} captions are empty after tokenising: {shown(empty)}")
    return tuple(notes)
