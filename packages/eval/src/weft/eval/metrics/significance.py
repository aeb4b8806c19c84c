"""How sure a score is: bootstrap intervals, and paired tests between two runs on the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.report import ScoreReport

Array = npt.NDArray[Any]
_CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with its bootstrap interval.

    Attributes:
        score: The score of the whole set.
        low: Lower end.
        high: Upper end.
        confidence: Share of resamples inside, such as 0.95.
    """

    score: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.score:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class PairedResult:
    """The difference between two runs on the same samples.

    Attributes:
        difference: First minus second, in the unit of the scores.
        low: Lower end of its bootstrap interval.
        high: Upper end of its bootstrap interval.
        p_value: Two-sided probability of so large a difference if the runs were exchangeable.
        n: Number of common samples.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int

    @property
    def mark(self) -> str:
        """`**` below 0.01, `*` below 0.05, else empty: the mark tables carry."""
        return "**" if self.p_value < 0.01 else "*" if self.p_value < 0.05 else ""


def bootstrap_interval(
    report: ScoreReport, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a score that is a mean over samples.

    Args:
        report: A report whose headline is the mean of its per-sample scores (accuracies, CIDEr-D under fixed
            document frequencies). For BLEU use `bootstrap_aggregate`.
        resamples: Number of resamples.
        confidence: Share of resamples inside the interval, between 0 and 1.
        seed: Seed of the resampling.

    Returns:
        The interval around the mean of the per-sample scores.

    Raises:
        ScoreInputError: The report has no per-sample scores, or the numbers are out of range.

    Source:
        Efron and Tibshirani 1993, chapter 13 (percentile interval).

    Example:
        >>> from weft.eval.metrics import top1_accuracy
        >>> report = top1_accuracy(dict.fromkeys(range(100), 1), {i: int(i < 60) for i in range(100)})
        >>> interval = bootstrap_interval(report)
        >>> interval.low < 60 < interval.high
        True
    """
    values = _values(report)
    return _interval(float(values.mean()), _resampled_means(values, resamples, confidence, seed), confidence)


def bootstrap_aggregate(
    statistics: Array,
    aggregate: Callable[[Array], float],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a corpus score that is computed from summed counts, such as BLEU.

    Args:
        statistics: Shape `(samples, counts)`.
        aggregate: Turns summed counts of shape `(counts,)` into the score.
        resamples: Number of resamples.
        confidence: Share of resamples inside the interval.
        seed: Seed of the resampling.

    Returns:
        The interval around `aggregate` of the sum over all samples.

    Raises:
        ScoreInputError: There is no sample, or the numbers are out of range.
    """
    table = np.asarray(statistics)
    count = len(table)
    _check(count, resamples, confidence)
    generator = np.random.default_rng(seed)
    draws = (generator.integers(count, size=count) for _ in range(resamples))
    scores = np.array([aggregate(np.bincount(drawn, minlength=count) @ table) for drawn in draws])
    return _interval(float(aggregate(table.sum(axis=0))), scores, confidence)


def paired_test(
    first: ScoreReport,
    second: ScoreReport,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedResult:
    """Compare two runs sample by sample.

    The p-value is that of approximate randomisation: the sign of every sample's difference is flipped at
    random; the interval is the percentile bootstrap of the mean difference.

    Args:
        first: One report.
        second: The other, of the same metric, variant and samples.
        resamples: Number of random sign patterns and of resamples.
        confidence: Share of resamples inside the interval.
        seed: Seed.

    Returns:
        The difference `first - second` with its interval and p-value.

    Raises:
        ScoreInputError: The reports differ in metric, variant or samples.

    Source:
        Noreen 1989 (approximate randomisation); the p-value counts the observed pattern as one of them.
    """
    for name in ("metric", "variant"):
        if getattr(first, name) != getattr(second, name):
            raise ScoreInputError(
                f"Two reports must share `{name}` to be compared, but have {getattr(first, name)!r} and "
                f"{getattr(second, name)!r}. Score both the same way."
            )
    ours, theirs = first.per_sample, second.per_sample
    unmatched = [*(key for key in ours if key not in theirs), *(key for key in theirs if key not in ours)]
    if unmatched:
        raise ScoreInputError(
            f"Two reports must cover the same samples, but {len(unmatched)} are in one only: "
            f"{shown(unmatched)}. Score both on the same subset."
        )
    differences = _values(first) - np.array([theirs[key] for key in ours])
    observed = float(differences.mean())
    ends = _interval(observed, _resampled_means(differences, resamples, confidence, seed), confidence)
    generator = np.random.default_rng(seed + 1)
    moved = differences[differences != 0]
    at_least = 0
    for size in _chunks(resamples, max(1, len(moved))):
        signs = generator.integers(0, 2, size=(size, len(moved)), dtype=np.int8) * 2 - 1
        flipped = signs @ moved / len(differences)
        at_least += int((np.abs(flipped) >= abs(observed) - 1e-12).sum())
    return PairedResult(observed, ends.low, ends.high, (at_least + 1) / (resamples + 1), len(differences))


def _values(report: ScoreReport) -> Array:
    if not report.per_sample:
        raise ScoreInputError(
            f"`report` must hold per-sample scores, but {report.metric} has none. Use a metric of samples."
        )
    return np.array(list(report.per_sample.values()), dtype=np.float64)


def _check(samples: int, resamples: int, confidence: float) -> None:
    if samples < 1 or resamples < 1 or not 0 < confidence < 1:
        raise ScoreInputError(
            "A bootstrap needs samples >= 1, `resamples` >= 1 and 0 < `confidence` < 1, but got "
            f"{samples}, {resamples} and {confidence}. Use 1000 resamples and 0.95."
        )


def _resampled_means(values: Array, resamples: int, confidence: float, seed: int) -> Array:
    _check(len(values), resamples, confidence)
    generator = np.random.default_rng(seed)
    parts = [
        values[generator.integers(len(values), size=(size, len(values)))].mean(axis=1)
        for size in _chunks(resamples, len(values))
    ]
    return np.concatenate(parts)


def _chunks(total: int, width: int) -> list[int]:
    size = max(1, _CHUNK_ELEMENTS // width)
    return [min(size, total - start) for start in range(0, total, size)]


def _interval(score: float, resampled: Array, confidence: float) -> Interval:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(score, float(low), float(high), confidence)
