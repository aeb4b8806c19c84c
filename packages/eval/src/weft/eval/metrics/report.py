"""What every metric returns: corpus scores with their unit, groups, and one number per sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.eval.metrics.alignment import Alignment

PERCENT = "percent"
FRACTION = "fraction"
RANK = "rank"
DISTANCE = "distance"


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The mean score of one group of samples.

    Attributes:
        score: Mean, in the unit of the report's headline score.
        n: Number of samples in the group.
    """

    score: float
    n: int


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """The outcome of scoring one set of predictions.

    Attributes:
        metric: Name of the metric, such as `"vqa_accuracy"`.
        variant: Which definition was used, such as `"official-vqa-2021"`; two reports with different
            variants must not be compared.
        headline: The key of `scores` that papers report.
        scores: Corpus scores. `None` marks a score that could not be computed from what was given;
            it is never replaced by 0.
        units: The unit of each entry of `scores`: `"percent"` (0..100), `"fraction"` (as the official
            script prints it), `"rank"` (1 is best) or `"distance"` (lower is better).
        n: Number of scored samples.
        groups: Axis (such as `"answer_type"`) to group name to its mean.
        per_sample: Sample id to its own score, unrounded, in the unit of the headline score.
        missing: How many references had no prediction (only with `subset=True`).
        extra: How many predictions had no reference and were left out (only with `subset=True`).
        notes: Remarks a reader of the scores must see.
        reasons: Entry of `scores` that is `None` to why, and what would give it.
    """

    metric: str
    variant: str
    headline: str
    scores: Mapping[str, float | None]
    units: Mapping[str, str]
    n: int
    groups: Mapping[str, Mapping[str, GroupScore]] = field(default_factory=dict)
    per_sample: Mapping[Any, float] = field(default_factory=dict)
    missing: int = 0
    extra: int = 0
    notes: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The headline score in its own unit."""
        value = self.scores[self.headline]
        assert value is not None, "a headline score is always computed"
        return value

    @property
    def percent(self) -> float:
        """The headline score times 100 when its unit is a fraction, else as it is.

        This is the number that tables of several tasks show: 71.2 for an accuracy, 112.4 for CIDEr.
        """
        return self.value * 100 if self.units[self.headline] == FRACTION else self.value

    @property
    def is_subset(self) -> bool:
        """Whether fewer samples were scored than the references hold."""
        return self.missing > 0

    def to_dict(self, *, per_sample: bool = False) -> dict[str, Any]:
        """Return the report as plain JSON-able data; `per_sample` adds one score per id, which becomes text."""
        data: dict[str, Any] = {
            "metric": self.metric,
            "variant": self.variant,
            "headline": self.headline,
            "scores": dict(self.scores),
            "units": dict(self.units),
            "n": self.n,
            "groups": {
                axis: {name: {"score": group.score, "n": group.n} for name, group in members.items()}
                for axis, members in self.groups.items()
            },
            "missing": self.missing,
            "extra": self.extra,
            "notes": list(self.notes),
            "reasons": dict(self.reasons),
        }
        if per_sample:
            data["per_sample"] = {str(key): value for key, value in self.per_sample.items()}
        return data

    def __str__(self) -> str:
        lines = [f"{self.metric} ({self.variant}), n = {self.n}"]
        if self.is_subset:
            lines[0] += f", SUBSET: {self.missing} references have no prediction"
        for name, value in self.scores.items():
            absent = f"not available: {self.reasons[name]}" if name in self.reasons else "not available"
            shown = absent if value is None else f"{value:.4f} {self.units[name]}"
            lines.append(f"  {name}: {shown}")
        lines.extend(f"  note: {note}" for note in self.notes)
        return "\n".join(lines)


def sample_report(
    metric: str,
    variant: str,
    paired: Alignment,
    scores: Mapping[str, float | None],
    per_sample: Mapping[Any, float],
    groups: Mapping[str, Mapping[str, GroupScore]],
    *,
    unit: str = PERCENT,
    notes: tuple[str, ...] = (),
) -> ScoreReport:
    """The report of a metric that scores samples, all in one unit; arguments as the attributes of `ScoreReport`.

    The first of `scores` is the headline; `paired` says what was left out.
    """
    return ScoreReport(
        metric=metric,
        variant=variant,
        headline=next(iter(scores)),
        scores=scores,
        units=dict.fromkeys(scores, unit),
        n=len(per_sample),
        groups=groups,
        per_sample=per_sample,
        missing=paired.missing,
        extra=paired.extra,
        notes=notes,
    )


def credit_report(
    metric: str,
    variant: str,
    paired: Alignment,
    credit: Mapping[Any, float],
    groups: Mapping[str, Mapping[Any, str]] | None,
    *,
    name: str = "accuracy",
    digits: int | None = None,
    notes: tuple[str, ...] = (),
) -> ScoreReport:
    """The report of a metric that gives every sample a credit from 0 to 1, of which the score is the mean in percent.

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
    return sample_report(
        metric,
        variant,
        paired,
        {name: mean_of(credit.values(), 100, digits)},
        {key: 100 * value for key, value in credit.items()},
        group_means(groups or {}, credit, scale=100, digits=digits),
        notes=notes,
    )


def group_means(
    labels: Mapping[str, Mapping[Any, str]],
    per_sample: Mapping[Any, float],
    *,
    scale: float = 1.0,
    digits: int | None = None,
) -> dict[str, dict[str, GroupScore]]:
    """Average per-sample scores inside every group of every axis.

    Args:
        labels: Axis to sample id to group name; ids without a score are left out.
        per_sample: Sample id to score.
        scale: Factor on each sum (100 turns fractions into percent).
        digits: Round each mean to this many decimals, or keep it whole when `None`.

    Returns:
        Axis to group name (in order of first appearance) to its mean and size.
    """
    result: dict[str, dict[str, GroupScore]] = {}
    for axis, members in labels.items():
        gathered: dict[str, list[float]] = {}
        for key, score in per_sample.items():
            if key in members:
                gathered.setdefault(members[key], []).append(score)
        result[axis] = {
            name: GroupScore(mean_of(values, scale, digits), len(values)) for name, values in gathered.items()
        }
    return result


def mean_of(values: Collection[float], scale: float = 1.0, digits: int | None = None) -> float:
    """`scale * sum / count` of at least one value, in the order of operations of the official scripts.

    Args:
        values: The numbers.
        scale: Factor on the sum.
        digits: Round to this many decimals, or not at all when `None`.
    """
    mean = scale * sum(values) / len(values)
    return mean if digits is None else round(mean, digits)
