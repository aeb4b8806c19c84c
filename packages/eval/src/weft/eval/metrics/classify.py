"""Exact-match (top-1) accuracy over class names, class numbers or short answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from weft.eval.errors import ScoreTypeError
from weft.eval.metrics.alignment import align, require_each
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import PERCENT, ScoreReport, group_means, mean_of, sample_report

Label = str | int
FEW = 5
"""The best classes that are kept of a ranking."""


def top1_accuracy(
    predictions: Mapping[Any, Label],
    references: Mapping[Any, Label],
    *,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Share of samples whose predicted label equals the true one.

    Args:
        predictions: Sample id to predicted class (name or number); text is compared exactly.
        references: Sample id to true class.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over: axis to sample id to group name.

    Returns:
        Report with `accuracy` and `mean_per_class` (the mean of the accuracies of the true classes), in
        percent, and the group axis `class`.

    Raises:
        ScoreInputError: Ids do not match.
        ScoreTypeError: A label is neither text nor an integer, or the two sides mix names and numbers.

    Example:
        >>> top1_accuracy({1: "cat", 2: "dog"}, {1: "cat", 2: "cat"}).value
        50.0
    """
    paired = align(predictions, references, subset=subset)
    _check_labels(predictions, references, paired.ids)
    per_sample: dict[Hashable, float] = {
        key: 100.0 * bool(predictions[key] == references[key]) for key in paired.ids
    }
    classes = {key: str(references[key]) for key in paired.ids}
    grouped = group_means({"class": classes, **(groups or {})}, per_sample)
    scores = {
        "accuracy": mean_of(per_sample.values()),
        "mean_per_class": mean_of([group.score for group in grouped["class"].values()]),
    }
    return sample_report("top1_accuracy", "exact-match", paired, scores, per_sample, grouped)


def _check_labels(
    predictions: Mapping[Any, Label], references: Mapping[Any, Label], ids: list[Hashable]
) -> None:
    rule, remedy = "a class name or an integer", "Take the arg-max of scores before this call."
    for side, labels in (("predictions", predictions), ("references", references)):
        require_each(side, labels, ids, _is_label, rule, remedy)
    if len({isinstance(labels[key], str) for labels in (predictions, references) for key in ids}) > 1:
        raise ScoreTypeError(
            "`predictions` and `references` must both hold class names or both hold integers, but they are mixed. "
            "Convert one side."
        )


def _is_label(value: object) -> bool:
    # numpy integers count; booleans and floats do not.
    return isinstance(value, str) or (hasattr(value, "__index__") and not isinstance(value, bool))


class RankedClasses(dict[str, str]):
    """Record id to the best class, and beside it the best few.

    Args:
        best: Record id to class names, the best first.
    """

    def __init__(self, best: Mapping[str, Sequence[str]]) -> None:
        super().__init__({key: names[0] for key, names in best.items()})
        self.best = {key: tuple(names) for key, names in best.items()}


@register_metric("classes", "classify", headlines=("accuracy", "mean_per_class"))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    """Accuracy over class names, and how often the right one is among the best five where there are more."""
    right = {record.id: record.class_name for record in records}
    report = top1_accuracy(predictions, right, groups=groups)
    best = predictions.best if isinstance(predictions, RankedClasses) else {}
    if not best or any(len(names) < FEW for names in best.values()):
        return report
    found = sum(right[key] in names for key, names in best.items())
    return replace(
        report,
        scores={**report.scores, f"top{FEW}": 100.0 * found / len(right)},
        units={**report.units, f"top{FEW}": PERCENT},
    )
