"""Marks in a comparison: which methods differ from a chosen one by more than chance."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from weft.eval.compare.comparison import Comparison
from weft.eval.errors import ComparisonError, FormatError
from weft.eval.metrics.significance import PairedResult, paired_test
from weft.eval.report.pairing import paired_rows, scores_alone
from weft.eval.report.predictions import PredictionTable

Tables = Mapping[str, PredictionTable]


def significance(
    comparison: Comparison,
    against: str,
    tables: Mapping[str, Tables],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[tuple[str, str], PairedResult]:
    """Test every method against one, task by task, on the samples both were scored on.

    A method's score on a sample is its mean over seeds.

    Args:
        comparison: The comparison; its rows name their runs.
        against: The method that the others are held against.
        tables: Run id to the prediction tables of that run (see `weft.eval.report.scores_of_runs`). Runs without
            tables are left out.
        resamples: Number of random sign patterns.
        seed: Seed of the test.

    Returns:
        `(method, task)` to the result; `Comparison.with_marks` takes its marks.

    Raises:
        ComparisonError: `against` has no tables, or a method was scored on other records under the same ids.
    """
    comparison.entry(against)
    kept: dict[str, list[Tables]] = {entry.method: [] for entry in comparison.entries}
    for row in comparison.rows:
        if row.run_id is not None and row.run_id in tables:
            kept[row.method].append(tables[row.run_id])
    scores = {method: _mean_scores(own) for method, own in kept.items()}
    if not scores[against]:
        raise ComparisonError(
            f"`against` must name a method whose runs keep prediction tables, but {against!r} has none. "
            "Evaluate its run again, or choose another method."
        )
    results = {}
    for method, tasks in scores.items():
        for task in tasks.keys() & scores[against].keys():
            if method != against and _same_records(method, against, task, kept):
                first, second = (scores_alone(one[task], "paired") for one in (tasks, scores[against]))
                results[method, task] = paired_test(first, second, resamples=resamples, seed=seed)
    return results


def _mean_scores(runs: Sequence[Tables]) -> dict[str, dict[str, float]]:
    gathered: dict[str, dict[str, list[float]]] = {}
    for tables in runs:
        for task, table in tables.items():
            for sample in table.rows:
                gathered.setdefault(task, {}).setdefault(sample.id, []).append(sample.score)
    return {
        task: {key: statistics.fmean(values) for key, values in samples.items()}
        for task, samples in gathered.items()
    }


def _same_records(method: str, against: str, task: str, kept: Mapping[str, Sequence[Tables]]) -> bool:
    """Whether two methods were scored on the same samples; ids alone do not tell.

    Raises:
        ComparisonError: Ids are the same and records are not.
    """
    first, *others = (tables[task] for tables in (*kept[method], *kept[against]) if task in tables)
    ids = {row.id for row in first.rows}
    if any({row.id for row in other.rows} != ids for other in others):
        return False
    try:
        for other in others:
            paired_rows(first, other)
    except FormatError as error:
        raise ComparisonError(f"{method!r} cannot be held against {against!r}. {error}") from None
    return True
