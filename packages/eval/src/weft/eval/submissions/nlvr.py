"""NLVR and NLVR2: `identifier,judgement` lines and JSON-lines gold files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from weft.eval.errors import FormatError, shown
from weft.eval.metrics.nlvr import nlvr2_accuracy, nlvr_accuracy
from weft.eval.submissions.format import Predictions, References, Submission, register_submission
from weft.eval.submissions.reading import by_id, read_csv, read_pairs

_ORDERS = 6
_IMAGE_FIELDS = 4


def _read_predictions(path: Path) -> Predictions:
    pairs = by_id(((row[0], row[1].strip()) for row in read_csv(path, columns=2)), path)
    wrong = [key for key, judgement in pairs.items() if judgement.lower() not in ("true", "false")]
    if wrong:
        raise FormatError(
            f"Each row of {str(path)!r} must end in true or false, but {len(wrong)} do not: {shown(wrong)}. "
            "Write one judgement per identifier."
        )
    return pairs


def _read_nlvr_predictions(path: Path) -> Predictions:
    return by_id(((_nlvr_identifier(key), value) for key, value in _read_predictions(path).items()), path)


def _nlvr_identifier(name: str) -> str:
    """`dev-1572-0-3.png` to `1572-0-3`; `1572-0` stays."""
    stem = name.removesuffix(".png")
    return stem.split("-", 1)[1] if stem.count("-") == _IMAGE_FIELDS - 1 else stem


_labels = partial(read_pairs, key="identifier", value="label", held="labels")


def _read_nlvr_gold(path: Path) -> References:
    return {f"{key}-{order}": label for key, label in _labels(path).items() for order in range(_ORDERS)}


def _write(predictions: Mapping[Any, Any]) -> str:
    return "".join(f"{key},{str(judgement).lower()}\n" for key, judgement in predictions.items())


def _write_nlvr(predictions: Mapping[Any, Any]) -> str:
    return _write({_picture(str(key)): judgement for key, judgement in predictions.items()})


def _picture(name: str) -> str:
    """`dev-1572-0-3` (split, n, m and the order of the boxes) to `dev-1572-0-3.png`; `1572-0-3` stays."""
    stem = name.removesuffix(".png")
    return f"{stem}.png" if stem.count("-") == _IMAGE_FIELDS - 1 else name


NLVR = register_submission(
    Submission(
        task="nlvr",
        description="predictions: lines `dev-1572-0-3.png,true`, six per sentence; gold: NLVR JSON lines",
        read_predictions=_read_nlvr_predictions,
        write_predictions=_write_nlvr,
        read_gold=_read_nlvr_gold,
        score=nlvr_accuracy,
        suffix=".csv",
        datasets=("nlvr",),
    )
)

NLVR_STRUCTURED = register_submission(
    Submission(
        task="nlvr_structured",
        description="predictions: lines `1572-0,true`, one per structured scene; gold: NLVR JSON lines",
        read_predictions=_read_predictions,
        write_predictions=_write,
        read_gold=_labels,
        score=nlvr_accuracy,
        suffix=".csv",
    )
)

NLVR2 = register_submission(
    Submission(
        task="nlvr2",
        description="predictions: lines `dev-850-0-0,True`; gold: NLVR2 JSON lines",
        read_predictions=_read_predictions,
        write_predictions=_write,
        read_gold=_labels,
        score=nlvr2_accuracy,
        suffix=".csv",
        datasets=("nlvr2",),
    )
)
