"""Whether confidences mean what they say: expected and maximum calibration error, Brier score."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from numbers import Real
from typing import Any

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.alignment import align, require_each
from weft.eval.metrics.report import FRACTION, GroupScore, ScoreReport, mean_of, sample_report


def calibration(
    confidences: Mapping[Any, float],
    correct: Mapping[Any, bool],
    *,
    bins: int = 15,
    subset: bool = False,
) -> ScoreReport:
    """Compare confidences with how often the predictions were right.

    Samples are sorted into bins of equal width; the expected calibration error is
    `sum_b n_b / n * |accuracy_b - confidence_b|`.

    Args:
        confidences: Sample id to the probability given to the predicted answer, 0..1.
        correct: Sample id to whether the prediction was right.
        bins: Number of bins; the upper edge belongs to a bin.
        subset: Use only the ids that both sides hold.

    Returns:
        Report with `ece`, `mce` (the worst bin), `brier` (mean squared difference), `accuracy` and
        `confidence` as fractions. The group axes `accuracy` and `confidence` hold the bins of a reliability
        diagram under their upper edges. Per-sample scores are squared differences.

    Raises:
        ScoreInputError: Ids do not match, a confidence lies outside 0..1 or is NaN, or `bins` is below 1.
        ScoreTypeError: A confidence is not a number.

    Source:
        Guo et al. 2017, equation 3; Brier 1950 for the top answer.

    Example:
        >>> calibration({1: 0.75, 2: 0.75, 3: 0.75, 4: 0.75}, {1: True, 2: True, 3: True, 4: False}).value
        0.0
    """
    if bins < 1:
        raise ScoreInputError(f"`bins` must be at least 1, but is {bins}. The usual number is 15.")
    paired = align(confidences, correct, subset=subset)
    _check_confidences(confidences, paired.ids)
    accuracy, confidence = _diagram(confidences, correct, paired.ids, bins)
    gaps = [(abs(accuracy[edge].score - mean.score), mean.n) for edge, mean in confidence.items()]
    squares = {key: (confidences[key] - bool(correct[key])) ** 2 for key in paired.ids}
    scores = {
        "ece": sum(gap * size for gap, size in gaps) / len(squares),
        "mce": max(gap for gap, _ in gaps),
        "brier": mean_of(squares.values()),
        "accuracy": mean_of([bool(correct[key]) for key in paired.ids]),
        "confidence": mean_of([confidences[key] for key in paired.ids]),
    }
    diagram = {"accuracy": accuracy, "confidence": confidence}
    return sample_report(
        "calibration", f"{bins} bins of equal width", paired, scores, squares, diagram, unit=FRACTION
    )


def _check_confidences(confidences: Mapping[Any, float], ids: list[Hashable]) -> None:
    remedy = "Pass the probability of the predicted answer."
    require_each("confidences", confidences, ids, lambda value: isinstance(value, Real), "a number", remedy)
    wrong = [key for key in ids if not 0 <= confidences[key] <= 1]
    if wrong:
        raise ScoreInputError(
            f"Each confidence must lie in 0..1, but {len(wrong)} do not: {shown(wrong)} "
            f"(the first is {confidences[wrong[0]]}). Pass probabilities, not logits."
        )


def _diagram(
    confidences: Mapping[Any, float], correct: Mapping[Any, bool], ids: list[Hashable], bins: int
) -> tuple[dict[str, GroupScore], dict[str, GroupScore]]:
    """Upper edge of every bin that is not empty to its accuracy, and to its mean confidence."""
    members: dict[int, list[Hashable]] = {}
    for key in ids:
        members.setdefault(_bin(confidences[key], bins), []).append(key)
    accuracy: dict[str, GroupScore] = {}
    confidence: dict[str, GroupScore] = {}
    for place, keys in sorted(members.items()):
        edge = f"{(place + 1) / bins:.3f}"
        accuracy[edge] = GroupScore(mean_of([bool(correct[key]) for key in keys]), len(keys))
        confidence[edge] = GroupScore(mean_of([confidences[key] for key in keys]), len(keys))
    return accuracy, confidence


def _bin(confidence: float, bins: int) -> int:
    # Half-open to the left: (0, 1/bins] is the first; 0 itself joins it.
    scaled = confidence * bins
    place = int(scaled)
    return max(0, place - 1 if scaled == place else place)
