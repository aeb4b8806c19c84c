"""NLVR and NLVR2: accuracy of true/false judgements and consistency over the scenes of one sentence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.alignment import align, require_each
from weft.eval.metrics.registry import Groups, register_metric
from weft.eval.metrics.report import ScoreReport, group_means, sample_report


def nlvr_accuracy(
    predictions: Mapping[Any, str | bool],
    references: Mapping[Any, str | bool],
    *,
    sentences: Mapping[Any, str] | None = None,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Score NLVR judgements.

    Args:
        predictions: Identifier (such as `"1572-0"`, or `"1572-0-3"` for one of six box orders) to "true" or
            "false", in any letter case, or a boolean.
        references: Identifier to the label, in the same forms.
        sentences: Identifier to the sentence it belongs to; by default the first field of the identifier.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over: axis to identifier to group name.

    Returns:
        Report with `accuracy` and `consistency` (share of sentences judged right in all their scenes), both
        in percent.

    Raises:
        ScoreInputError: Ids do not match or an identifier has too few fields.
        ScoreTypeError: A judgement is neither text nor a boolean.

    Source:
        lil-lab/nlvr, `nlvr/metrics_images.py` and `nlvr/metrics_structured_rep.py` (which print fractions).
    """
    return _score("nlvr_accuracy", predictions, references, sentences, _nlvr_sentence, subset, groups)


def nlvr2_accuracy(
    predictions: Mapping[Any, str | bool],
    references: Mapping[Any, str | bool],
    *,
    sentences: Mapping[Any, str] | None = None,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Score NLVR2 judgements as `nlvr_accuracy` scores those of NLVR, with the same arguments, result and errors.

    Identifiers read `split-set-pair-sentence`, and those that differ only in the third field share one sentence.

    Source:
        lil-lab/nlvr, `nlvr2/eval/metrics.py` (which prints fractions).

    Example:
        >>> nlvr2_accuracy({"dev-1-0-0": "true", "dev-1-1-0": "true"},
        ...                {"dev-1-0-0": "True", "dev-1-1-0": "False"}).scores
        {'accuracy': 50.0, 'consistency': 0.0}
    """
    return _score("nlvr2_accuracy", predictions, references, sentences, _nlvr2_sentence, subset, groups)


def _score(
    metric: str,
    predictions: Mapping[Any, str | bool],
    references: Mapping[Any, str | bool],
    sentences: Mapping[Any, str] | None,
    sentence_of: Callable[[Hashable], str],
    subset: bool,
    groups: Mapping[str, Mapping[Any, str]] | None,
) -> ScoreReport:
    paired = align(predictions, references, subset=subset)
    missing = [] if sentences is None else [key for key in paired.ids if key not in sentences]
    if missing:
        raise ScoreInputError(
            f"`sentences` must name the sentence of every id, but {len(missing)} are missing: {shown(missing)}. "
            "Add them, or leave `sentences` out to read the identifiers."
        )
    rule, remedy = "'true', 'false' or a boolean", "Turn logits into a judgement before scoring."
    for side, values in (("predictions", predictions), ("references", references)):
        require_each(side, values, paired.ids, lambda value: isinstance(value, str | bool), rule, remedy)
    per_sample: dict[Hashable, float] = {}
    consistent: dict[str, bool] = {}
    for key in paired.ids:
        right = str(predictions[key]).lower() == str(references[key]).lower()
        sentence = sentence_of(key) if sentences is None else sentences[key]
        consistent[sentence] = consistent.get(sentence, True) and right
        per_sample[key] = 100.0 * right
    correct = sum(score > 0 for score in per_sample.values())
    scores = {
        "accuracy": 100 * (correct / len(per_sample)),
        "consistency": 100 * (sum(consistent.values()) / len(consistent)),
    }
    grouped = group_means(groups or {}, per_sample)
    return sample_report(metric, "official", paired, scores, per_sample, grouped)


def _nlvr_sentence(key: Hashable) -> str:
    return str(key).split("-")[0]


def _nlvr2_sentence(key: Hashable) -> str:
    fields = str(key).split("-")
    if len(fields) < 3:
        raise ScoreInputError(
            f"Each id must read split-set-pair-sentence, but one is {key!r}. "
            "Use the official identifiers, or pass `sentences`."
        )
    fields[2] = ""
    return "-".join(fields)


def _of_records(
    metric: Callable[..., ScoreReport], predictions: Any, records: Sequence[Any], groups: Groups
) -> ScoreReport:
    labels = {record.id: bool(record.label) for record in records}
    sentences = {record.id: record.group_id for record in records}
    return metric(predictions, labels, sentences=sentences, groups=groups)


for _name, _metric in (("nlvr", nlvr_accuracy), ("nlvr2", nlvr2_accuracy)):
    register_metric(_name, "pair_bool", headlines=("accuracy", "consistency"))(partial(_of_records, _metric))
