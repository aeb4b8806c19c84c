"""What every metric does with ids that do not match, wrong types and NaN: refused, with a count and the first ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from weft.eval import metrics
from weft.eval.errors import EvalError, ScoreInputError, ScoreTypeError
from weft.eval.metrics import ScoreReport
from weft.eval.metrics.few_shot import restricted_predictions

# Metric to a right prediction and its reference; ids are those of NLVR2, which all metrics take.
CASES: dict[str, tuple[Any, Any]] = {
    "anls": ("yes", ["yes"]),
    "calibration": (0.5, True),
    "caption_scores": ("a red cat sits here", ["a red cat sits here", "a cat"]),
    "didemo_localisation": ([(0, 0), (0, 1), (1, 1)], [(0, 0)] * 4),
    "exact_accuracy": ("yes", "yes"),
    "gqa_accuracy": ("yes", "yes"),
    "multiple_choice_accuracy": (1, 1),
    "nlvr2_accuracy": ("true", "True"),
    "nlvr_accuracy": ("true", "true"),
    "open_ended_accuracy": ("yes", "yes"),
    "relaxed_accuracy": ("yes", "yes"),
    "top1_accuracy": ("cat", "cat"),
    "vl_adapter_vqa_accuracy": ("yes", ["yes"] * 10),
    "vqa_accuracy": ("yes", ["yes"] * 10),
}
IDS = [f"dev-{number}-0-{number}" for number in range(9)]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Callable[..., ScoreReport], dict[str, Any], dict[str, Any]]:
    prediction, reference = CASES[request.param]
    return getattr(metrics, request.param), dict.fromkeys(IDS, prediction), dict.fromkeys(IDS, reference)


def test_every_metric_that_takes_predictions_by_id_is_here() -> None:
    by_id = {
        name
        for name in metrics.__all__
        if name.islower() and {"subset"} & set(getattr(metrics, name).__code__.co_varnames)
    }
    assert by_id == set(CASES)


def test_missing_ids_are_counted_and_the_first_named(case: Any) -> None:
    metric, predictions, references = case
    few = {key: predictions[key] for key in IDS[2:]}
    with pytest.raises(ScoreInputError, match="2 are missing: 'dev-0-0-0', 'dev-1-0-1'"):
        metric(few, references)
    report = metric(few, references, subset=True)
    assert (report.n, report.missing, report.is_subset) == (7, 2, True)
    assert "SUBSET: 2 references have no prediction" in str(report)
    assert report.to_dict()["missing"] == 2


def test_unknown_ids_are_counted_and_the_first_named(case: Any) -> None:
    metric, predictions, references = case
    more = predictions | {f"dev-9{k}-0-0": predictions[IDS[0]] for k in range(3)}
    with pytest.raises(ScoreInputError, match="3 are unknown: 'dev-90-0-0', 'dev-91-0-0', 'dev-92-0-0'"):
        metric(more, references)
    assert metric(more, references, subset=True).extra == 3


@pytest.mark.parametrize("bad", [float("nan"), None, [1, 2]], ids=["nan", "none", "list"])
def test_predictions_of_a_wrong_type_are_counted_and_the_first_named(case: Any, bad: Any) -> None:
    metric, predictions, references = case
    with pytest.raises(EvalError, match=r"2 (are|do) not: 'dev-0-0-0', 'dev-3-0-3'"):
        metric(predictions | {IDS[0]: bad, IDS[3]: bad}, references)


def test_nothing_and_lists_are_refused(case: Any) -> None:
    metric, predictions, references = case
    with pytest.raises(ScoreInputError, match="`predictions` must hold at least one id, but is empty"):
        metric({}, references)
    with pytest.raises(ScoreTypeError, match="`predictions` must map ids to values, but is a list"):
        metric(list(predictions.values()), references)


def test_class_scores_that_are_nan_are_refused() -> None:
    scores = np.zeros((4, 3))
    scores[[1, 3], 2] = np.nan
    with pytest.raises(ScoreInputError, match="must hold numbers, but 2 samples have NaN: 'b', 'd'"):
        restricted_predictions(scores, ["a", "b", "c", "d"], [0, 2])
    with pytest.raises(ScoreInputError, match="must be at least 0, but are nan and 1"):
        metrics.harmonic_mean(float("nan"), 1.0)
