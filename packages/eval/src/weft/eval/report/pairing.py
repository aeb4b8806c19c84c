"""Samples of two runs, paired: the same record, not merely the same id."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from weft.eval.errors import FormatError
from weft.eval.metrics.report import PERCENT, ScoreReport
from weft.eval.report.predictions import PredictionRow, PredictionTable

Pairs = list[tuple[PredictionRow, PredictionRow]]


def same_record(row: PredictionRow, other: PredictionRow) -> bool:
    """Whether two rows are of one record: by id, question, right answers and, where both tell, pictures."""
    told = bool(row.media and other.media)
    return (
        row.id == other.id
        and row.question == other.question
        and set(row.references) == set(other.references)
        and (not told or row.media == other.media)
    )


def paired_rows(table: PredictionTable, other: PredictionTable) -> Pairs:
    """The samples that two tables of one task share, one pair for every id, in the order of the first table.

    Raises:
        FormatError: Some of these ids belong to different records, with their share.
    """
    second = {row.id: row for row in other.rows}
    common = [(row, second[row.id]) for row in table.rows if row.id in second]
    apart = [row for row, mate in common if not same_record(row, mate)]
    if apart:
        equal = len(common) - len(apart)
        raise FormatError(
            f"Runs that are held against each other must be scored on the same records, but of the {len(common)} ids "
            f"that both have for task {table.task!r} only {equal} ({100 * equal / len(common):.1f} %) have the same "
            f"question, right answers and pictures; {apart[0].id!r}, for instance, has not. Evaluate both on one split."
        )
    return common


def scores_alone(scores: Mapping[str, float], metric: str) -> ScoreReport:
    """Scores of samples as `paired_test` takes them, in percent."""
    mean = {"mean": statistics.fmean(scores.values())}
    return ScoreReport(metric, "", "mean", mean, {"mean": PERCENT}, len(scores), per_sample=scores)
