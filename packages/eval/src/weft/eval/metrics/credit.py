"""The report of metrics that give every sample a credit from 0 to 1, of which the score is the mean in percent."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from weft.eval.metrics.alignment import Alignment
from weft.eval.metrics.report import PERCENT, ScoreReport, group_means, mean_of


def credit_report(
    metric: str,
    variant: str,
    paired: Alignment,
    credit: Mapping[Hashable, float],
    groups: Mapping[str, Mapping[Any, str]] | None,
    *,
    name: str = "accuracy",
    digits: int | None = None,
    notes: tuple[str, ...] = (),
) -> ScoreReport:
    """Make the report.

    Args:
        metric: Name of the metric.
        variant: Name of its definition.
        paired: The ids that are scored, and what was left out.
        credit: Sample id to its credit.
        groups: Axes to average over.
        name: What the score is called.
        digits: Decimals to which means are rounded, or None for whole ones.
        notes: What readers must know.
    """
    return ScoreReport(
        metric=metric,
        variant=variant,
        headline=name,
        scores={name: mean_of(credit.values(), 100, digits)},
        units={name: PERCENT},
        n=len(credit),
        groups=group_means(groups or {}, credit, scale=100, digits=digits),
        per_sample={key: 100 * value for key, value in credit.items()},
        missing=paired.missing,
        extra=paired.extra,
        notes=notes,
    )
