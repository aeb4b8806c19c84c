"""Captions of records: the official scores, and the share of captions that are a reference, word for word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from weft.eval.metrics.caption.scores import caption_scores
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import FRACTION, ScoreReport, group_means

_BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


@register_metric("caption", "caption", "conversation", headlines=("CIDEr", *_BLEU, "ROUGE_L", "exact"))
def _of_records(predictions: Mapping[Any, str], records: Sequence[Any], groups: Groups) -> ScoreReport:
    references = {record.id: list(record.references()) for record in records}
    report = caption_scores(predictions, references, groups=groups)
    exact = {
        key: float(_words(predictions[key]) in map(_words, captions)) for key, captions in references.items()
    }
    by_group = {f"{axis}: exact": means for axis, means in group_means(groups, exact).items()}
    return replace(
        report,
        scores={**report.scores, "exact": sum(exact.values()) / len(exact)},
        units={**report.units, "exact": FRACTION},
        groups={**report.groups, **by_group},
    )


def _words(text: str) -> list[str]:
    return text.lower().split()
