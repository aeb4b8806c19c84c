"""What every metric returns: corpus scores with their unit, groups, and one number per sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        """Return the report as plain JSON-able data.

        Args:
            per_sample: Also include one score per sample id (ids become text).

        Returns:
            A dictionary of numbers, text and dictionaries.
        """
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
    """Mean of at least one value, computed in the order of operations of the official scripts.

    Args:
        values: The numbers.
        scale: Factor on the sum.
        digits: Round to this many decimals, or not at all when `None`.

    Returns:
        `scale * sum / count`.
    """
    mean = scale * sum(values) / len(values)
    return mean if digits is None else round(mean, digits)
