"""Summaries of the few-shot protocols: over seeds, base to new classes, domain shift."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.classify import top1_accuracy
from weft.eval.metrics.report import ScoreReport


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """Mean and sample standard deviation over seeds.

    Attributes:
        mean: The mean.
        std: The standard deviation, or `None` with one seed.
        seeds: The seeds, sorted.
    """

    mean: float
    std: float | None
    seeds: tuple[int, ...]


def over_seeds(reports: Mapping[int, ScoreReport]) -> SeedSummary:
    """Mean and standard deviation (with `n - 1`) of the headline scores of several seeds.

    Args:
        reports: Seed to report, all of one metric and variant.

    Raises:
        ScoreInputError: There is no report, or they differ in metric or variant.
    """
    kinds = {(report.metric, report.variant) for report in reports.values()}
    if len(kinds) != 1:
        raise ScoreInputError(
            f"`reports` must hold one metric in one variant, but holds {len(kinds)}: {shown(sorted(kinds))}. "
            "Score every seed the same way."
        )
    values = [report.value for report in reports.values()]
    spread = statistics.stdev(values) if len(values) > 1 else None
    return SeedSummary(statistics.fmean(values), spread, tuple(sorted(reports)))


def harmonic_mean(base: float, new: float) -> float:
    """Harmonic mean of the accuracies on base and on new classes.

    Returns:
        `2 * base * new / (base + new)`, 0 when either is 0.

    Raises:
        ScoreInputError: A value is negative or NaN.

    Source:
        Xian et al. 2017; the "H" column of base-to-new tables.

    Example:
        >>> harmonic_mean(80.0, 60.0)
        68.57142857142857
    """
    if not (base >= 0 and new >= 0):
        raise ScoreInputError(
            f"`base` and `new` must be at least 0, but are {base} and {new}. Pass accuracies."
        )
    return 2 * base * new / (base + new) if base and new else 0.0


def restricted_predictions(
    scores: npt.NDArray[Any], ids: Sequence[Hashable], classes: Collection[int]
) -> dict[Hashable, int]:
    """Arg-max over the classes that a data set contains.

    ImageNet-A and ImageNet-R hold 200 of the 1,000 ImageNet classes; the published protocol lets the model
    choose among those only.

    Args:
        scores: Shape `(samples, all classes)`.
        ids: One id per sample.
        classes: The class numbers to choose from.

    Returns:
        Sample id to class number (in the numbering of all classes).

    Raises:
        ScoreInputError: Shapes do not fit, a score is NaN, or a class number is out of range.
    """
    allowed = np.array(sorted(set(classes)), dtype=np.int64)
    if scores.ndim != 2 or scores.shape[0] != len(ids) or not allowed.size:
        raise ScoreInputError(
            "`scores` must have shape (samples, classes) with one id per sample and at least one class, but has "
            f"shape {scores.shape} for {len(ids)} ids and {allowed.size} classes. Stack one row per sample."
        )
    if allowed[0] < 0 or allowed[-1] >= scores.shape[1]:
        raise ScoreInputError(
            f"`classes` must lie in 0..{scores.shape[1] - 1}, but reach from {allowed[0]} to {allowed[-1]}. "
            "Use the class numbers of the training set."
        )
    broken = np.flatnonzero(np.isnan(scores).any(axis=1)).tolist()
    if broken:
        raise ScoreInputError(
            f"`scores` must hold numbers, but {len(broken)} samples have NaN: {shown([ids[k] for k in broken])}. "
            "Look for a diverged model or an empty feature."
        )
    best = allowed[scores[:, allowed].argmax(axis=1)]
    return dict(zip(ids, best.tolist(), strict=True))


def domain_shift(
    source: tuple[Mapping[Any, int], Mapping[Any, int]],
    targets: Mapping[str, tuple[Mapping[Any, int], Mapping[Any, int]]],
) -> dict[str, float]:
    """Accuracy at home, on each shifted data set, and their mean.

    Args:
        source: Predictions and references on the data set that was trained on.
        targets: Name to predictions and references on a shifted one; see `restricted_predictions`.

    Returns:
        `source`, one entry per target, and `mean` over the targets, in percent.

    Raises:
        ScoreInputError: Ids do not match, or there is no target.
    """
    if not targets:
        raise ScoreInputError(
            "`targets` must hold at least one data set, but is empty. Name the shifted sets."
        )
    shifted = {name: top1_accuracy(*pair).value for name, pair in targets.items()}
    return {"source": top1_accuracy(*source).value} | shifted | {"mean": statistics.fmean(shifted.values())}
