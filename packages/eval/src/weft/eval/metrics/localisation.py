"""DiDeMo: finding the moment of a video that a sentence describes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.alignment import align, require_each
from weft.eval.metrics.report import FRACTION, ScoreReport, group_means, sample_report

Moment = Sequence[int]
_BEST_OF = 3


def didemo_localisation(
    predictions: Mapping[Any, Sequence[Moment]],
    references: Mapping[Any, Sequence[Moment]],
    *,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """Score ranked moments as the DiDeMo script does.

    Each description has about four annotations; a prediction is held against the three that suit it best, so
    that one careless annotation does not count.

    Args:
        predictions: Description id to all candidate moments `(first, last)` in five-second steps, best first.
        references: Description id to the annotated moments.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes over which the intersection over union is averaged.

    Returns:
        Report with `rank1`, `rank5` (share of descriptions whose mean rank of the three best annotations is
        at most 1 or 5) and `miou` (the headline), as fractions. Per-sample scores are intersections over
        union.

    Raises:
        ScoreInputError: Ids do not match, or an annotated moment is not among the candidates.
        ScoreTypeError: A prediction is no list of moments.

    Source:
        Hendricks et al. 2017, `utils/eval.py` of LisaAnne/LocalizingMoments.
    """
    paired = align(predictions, references, subset=subset)
    rule, remedy = "a list of moments (first, last)", "Rank all moments of the video, best first."
    require_each("predictions", predictions, paired.ids, _are_moments, rule, remedy)
    found = {key: _of_best_annotations(key, predictions[key], references[key]) for key in paired.ids}
    overlap = {key: shared for key, (shared, _) in found.items()}
    mean_ranks = np.array([rank for _, rank in found.values()])
    scores = {
        "miou": float(np.mean(list(overlap.values()))),
        "rank1": float((mean_ranks <= 1).mean()),
        "rank5": float((mean_ranks <= 5).mean()),
    }
    grouped = group_means(groups or {}, overlap)
    return sample_report("didemo_localisation", "official", paired, scores, overlap, grouped, unit=FRACTION)


def _of_best_annotations(
    key: Hashable, ranked: Sequence[Moment], annotations: Sequence[Moment]
) -> tuple[float, float]:
    """Mean overlap with the first candidate, and mean rank, over the annotations that suit best."""
    candidates = [tuple(moment) for moment in ranked]
    annotated = [tuple(moment) for moment in annotations]
    places = {moment: place for place, moment in reversed(list(enumerate(candidates, start=1)))}
    absent = [moment for moment in annotated if moment not in places]
    if absent or not annotated:
        raise ScoreInputError(
            f"Each value of `predictions` must rank every annotated moment, but that of {key!r} lacks "
            f"{shown(absent) or 'all'} among its {len(candidates)}. Rank all moments of the video."
        )
    found = sorted(places[moment] for moment in annotated)
    overlaps = sorted(_overlap(candidates[0], moment) for moment in annotated)
    return float(np.mean(overlaps[-_BEST_OF:])), float(np.mean(found[:_BEST_OF]))


def _are_moments(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and all(
        isinstance(moment, Sequence | np.ndarray) and len(moment) == 2 for moment in value
    )


def _overlap(predicted: Sequence[int], annotated: Sequence[int]) -> float:
    common = max(0, min(predicted[1], annotated[1]) + 1 - max(predicted[0], annotated[0]))
    together = max(predicted[1], annotated[1]) + 1 - min(predicted[0], annotated[0])
    return common / together
