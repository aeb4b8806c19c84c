"""One run, as a comparison takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from weft.eval.errors import ComparisonError, shown

_REQUIRED = ("method", "scores")


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        method: Machine name of the method; runs that share it are seeds of one entry.
        scores: Task to headline score, 0..100.
        label: Name for people.
        seed: Random seed.
        trainable: Trained parameters.
        total: All parameters of the model, trained ones included.
        seconds: Training time.
        memory: Peak memory in MB.
        control: A baseline such as majority or image-zeroed, which is listed apart and kept off fronts.
        run_id: Id of the run in its MLflow store.
        published: Where a number was printed and how sure it is, when it is not from a run of ours.
        percent: Trainable share in percent, where it is known without the counts.
    """

    method: str
    scores: Mapping[str, float]
    label: str = ""
    seed: int = 0
    trainable: int | None = None
    total: int | None = None
    seconds: float | None = None
    memory: float | None = None
    control: bool = False
    run_id: str | None = None
    published: str | None = None
    percent: float | None = None


def row_of(place: int, data: Mapping[str, Any]) -> Row:
    """A row from `method`, `scores` and any other field of `Row`; `place` is its number in messages.

    Raises:
        ComparisonError: A field is absent or unknown, or a score is no finite number.
    """
    optional = sorted({field.name for field in fields(Row)}.difference(_REQUIRED))
    absent = [name for name in _REQUIRED if name not in data]
    unknown = [name for name in data if name not in optional and name not in _REQUIRED]
    if absent or unknown:
        raise ComparisonError(
            f"A row must have `method` and `scores` and may have {', '.join(optional)}, but row {place} "
            f"lacks {shown(list(absent)) or 'nothing'} and has {shown(list(unknown)) or 'nothing'} unknown. "
            "Rename them."
        )
    wrong = [task for task, score in data["scores"].items() if not _is_score(score)]
    if wrong:
        raise ComparisonError(
            f"A score must be a finite number, but row {place} ({data['method']}) has others for {shown(wrong)}. "
            "Leave a task out that was not scored."
        )
    return Row(**{**data, "scores": dict(data["scores"]), "label": data.get("label") or data["method"]})


def _is_score(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
