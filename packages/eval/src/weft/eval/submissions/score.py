"""Scoring anybody's prediction file against an official annotation file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from weft.eval.errors import EvalError, FormatError
from weft.eval.metrics.report import ScoreReport
from weft.eval.submissions.format import get_submission

# What a field of another kind, or one that is absent, ends with.
_ODD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def score_predictions(
    task: str,
    predictions_file: Path | str,
    gold_file: Path | str,
    *,
    subset: bool = False,
    **options: Any,
) -> ScoreReport:
    """Score a prediction file in its benchmark's own format.

    Args:
        task: Name of the benchmark; see `list_submissions`.
        predictions_file: The predictions (`.gz` is unpacked).
        gold_file: The annotations of the same split (`.gz` is unpacked).
        subset: Score only what was predicted, and say so in the report.
        **options: Passed to the metric, such as `variant="lmms-eval"` for VQA or `consistency="all"` for GQA.

    Returns:
        The report; a note holds the hash of the annotations, so that scores of different files are not mixed.

    Raises:
        FormatError: The task is unknown, or a file is absent or not in its format, in whatever field.
        ScoreInputError: Ids do not match.
        ScoreTypeError: A prediction has the wrong type.
    """
    submission = get_submission(task)
    with _as_published(task, f"{str(predictions_file)!r}"):
        predictions = submission.read_predictions(Path(predictions_file))
    with _as_published(task, f"{str(gold_file)!r}"):
        references = submission.read_gold(Path(gold_file))
    with _as_published(task, f"what {str(gold_file)!r} or an option holds"):
        report = submission.score(predictions, references, subset=subset, **options)
    digest = hashlib.sha256(Path(gold_file).read_bytes()).hexdigest()
    return replace(
        report, notes=(*report.notes, f"scored against {Path(gold_file).name}, sha256 {digest[:16]}")
    )


@contextmanager
def _as_published(task: str, what: str) -> Iterator[None]:
    """Say of a file that it is not as the benchmark's own, whatever reading a field of it raised."""
    try:
        yield
    except EvalError:
        raise
    except _ODD as error:
        raise FormatError(
            f"{what} must have the fields of the official files of {task!r}, but cannot be read: "
            f"{type(error).__name__}: {str(error)[:200]}. Get the file again."
        ) from error
