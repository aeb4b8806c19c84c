"""Questions about videos: multiple choice (TVQA, How2QA) and one-word answers (MSRVTT-QA, MSVD-QA)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from weft.eval.errors import ScoreInputError
from weft.eval.metrics.alignment import align, require_each, require_text
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import ScoreReport, credit_report

_ENOUGH_TO_JUDGE = 20


def multiple_choice_accuracy(
    predictions: Mapping[Any, int],
    references: Mapping[Any, int],
    *,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Share of questions answered with the right option.

    Args:
        predictions: Question id to the number of the chosen option, from 0.
        references: Question id to the number of the right option, in the order the model saw them.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over, such as the show of TVQA.

    Returns:
        Report with `accuracy` in percent. A note warns when the right option is always at the same place,
        as in the files of How2QA: options must be shuffled before a model sees them.

    Raises:
        ScoreInputError: Ids do not match.
        ScoreTypeError: An option is not an integer.
    """
    paired = align(predictions, references, subset=subset)
    for side, options in (("predictions", predictions), ("references", references)):
        require_each(
            side, options, paired.ids, _is_position, "the number of an option", "Give positions from 0."
        )
    right = {key: float(bool(predictions[key] == references[key])) for key in paired.ids}
    places = {int(references[key]) for key in paired.ids}
    note = (
        f"every right answer is option {min(places)}: shuffle the options before the model sees them, or a constant "
        "guess scores 100"
    )
    notes = (note,) if len(places) == 1 and len(right) >= _ENOUGH_TO_JUDGE else ()
    return credit_report("multiple_choice_accuracy", "multiple choice", paired, right, groups, notes=notes)


def _is_position(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def open_ended_accuracy(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str],
    *,
    vocabulary: Collection[str] | None = None,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Share of questions whose one-word answer is exactly right.

    Args:
        predictions: Question id to answer.
        references: Question id to the right answer.
        vocabulary: The training answers a classifier can choose from. Questions whose answer lies outside
            count as wrong, as published, and are counted in a note.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over; the first word of the question ("what", "who" …) is the usual one.

    Returns:
        Report with `accuracy` in percent.

    Raises:
        ScoreInputError: Ids do not match, or the vocabulary is empty.
        ScoreTypeError: An answer is not text.
    """
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    if vocabulary is not None and not vocabulary:
        raise ScoreInputError("`vocabulary` must hold at least one answer, but is empty. Leave it out.")
    known = set(vocabulary or ())
    outside = {key for key in paired.ids if known and references[key] not in known}
    right = {key: float(predictions[key] == references[key] and key not in outside) for key in paired.ids}
    note = f"{len(outside)} of {len(right)} right answers lie outside the vocabulary and count as wrong"
    notes = (note,) if outside else ()
    return credit_report("open_ended_accuracy", "exact match", paired, right, groups, notes=notes)


@register_metric("multiple_choice", "video_mc", headlines=("accuracy",))
def _choices_of_records(
    predictions: Mapping[Any, str], records: Sequence[Any], groups: Groups
) -> ScoreReport:
    """An answer counts if it is exactly `a` and the option's number; anything else is wrong."""
    right = {record.id: record.answer or 0 for record in records}
    chosen = {key: number if predictions[key] == f"a{number}" else -1 for key, number in right.items()}
    return multiple_choice_accuracy(chosen, right, groups=groups)


@register_metric("open_ended", "video_qa", headlines=("accuracy",))
def _words_of_records(predictions: Mapping[Any, str], records: Sequence[Any], groups: Groups) -> ScoreReport:
    references = {record.id: record.references()[0] for record in records}
    return open_ended_accuracy(predictions, references, groups=groups)
