"""Bootstrap intervals of the caption scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from weft.eval.metrics.caption.bleu import STATISTICS, bleu_scores
from weft.eval.metrics.caption.cider import DocumentFrequency
from weft.eval.metrics.caption.ngrams import MAX_ORDER, Array
from weft.eval.metrics.caption.scores import measure
from weft.eval.metrics.significance import Interval, bootstrap_aggregate


def caption_intervals(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Sequence[str]],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    tokenized: bool = False,
    frequency: DocumentFrequency | None = None,
    subset: bool = False,
) -> dict[str, Interval]:
    """Percentile bootstrap of BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D over images.

    BLEU is aggregated again in every resample. The document frequencies of CIDEr-D stay those of the whole set. The
    arguments are those of `caption_scores` and of `bootstrap_aggregate`.

    Returns:
        Name of the score, as in `caption_scores`, to its interval, as fractions.

    Raises:
        ScoreInputError: Ids do not match, an image has no reference, or a number is out of range.
        ScoreTypeError: A caption is not text.
    """
    found = measure(predictions, references, tokenized=tokenized, frequency=frequency, subset=subset)
    table = np.column_stack([found.bleu, found.rouge, found.cider, np.ones(len(found.candidates))])
    score: dict[str, Any] = {f"Bleu_{order + 1}": partial(_bleu, order) for order in range(MAX_ORDER)}
    score |= {"ROUGE_L": partial(_mean, STATISTICS), "CIDEr": partial(_mean, STATISTICS + 1)}
    return {
        name: bootstrap_aggregate(table, aggregate, resamples=resamples, confidence=confidence, seed=seed)
        for name, aggregate in score.items()
    }


def _bleu(order: int, sums: Array) -> float:
    return bleu_scores(sums[:STATISTICS])[order]


def _mean(column: int, sums: Array) -> float:
    return float(sums[column] / sums[-1])
