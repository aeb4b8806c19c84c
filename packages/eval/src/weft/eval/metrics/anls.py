"""Average normalised Levenshtein similarity, as ST-VQA, DocVQA and InfographicVQA score."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from weft.eval.errors import ScoreInputError
from weft.eval.metrics.alignment import align, require_text
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import ScoreReport, credit_report

THRESHOLD = 0.5


def anls(
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[str]],
    *,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Mean over questions of the similarity to the nearest right answer, so that a slip in reading costs little.

    With `NL` the number of edits over the length of the longer text, an answer scores `1 - NL` where that is at least
    0.5, and nothing below. Case and repeated blanks do not count.

    Args:
        predictions: Question id to answer.
        references: Question id to all right answers, at least one.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over: axis to question id to group name.

    Returns:
        Report with `anls` in percent.

    Raises:
        ScoreInputError: Ids do not match, or a question has no right answer.
        ScoreTypeError: An answer is not text.

    Source:
        Biten et al. 2019, equations 1 and 2; at `NL` of exactly 0.5, where the paper gives nothing, the official script
        of the Robust Reading Competition keeps 0.5, and so does this.

    Example:
        >>> anls({1: "Coca Coal", 2: "no"}, {1: ["coca cola"], 2: ["a long answer"]}).per_sample[1]
        77.77777777777779
    """
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    credit: dict[Hashable, float] = {}
    for key in paired.ids:
        answers = dict(enumerate(references[key]))
        require_text(answers, list(answers), "references")
        if not answers:
            raise ScoreInputError(
                f"Each value of `references` must hold at least one answer, but that of {key!r} is empty. Leave the "
                "question out."
            )
        nearest = max(_similarity(_plain(predictions[key]), _plain(answer)) for answer in answers.values())
        credit[key] = nearest if nearest >= THRESHOLD else 0.0
    return credit_report("anls", "threshold 0.5", paired, credit, groups, name="anls")


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    shortest, longest = sorted((len(one), len(other)))
    if longest == 0:
        return 1.0
    # The lengths alone tell that texts so unequal stay below the threshold.
    return 0.0 if longest > 2 * shortest else 1.0 - _edits(one, other) / longest


def _edits(one: str, other: str) -> int:
    """Insertions, deletions and substitutions that make one text the other."""
    row = list(range(len(other) + 1))
    for place, character in enumerate(one, start=1):
        diagonal, row[0] = row[0], place
        for column, compared in enumerate(other, start=1):
            best = min(row[column] + 1, row[column - 1] + 1, diagonal + (character != compared))
            diagonal, row[column] = row[column], best
    return row[-1]


@register_metric("anls", "image_qa", "conversation", headlines=("anls",))
def _of_records(predictions: Any, records: Sequence[Any], groups: Groups) -> ScoreReport:
    return anls(predictions, {record.id: record.references() for record in records}, groups=groups)
