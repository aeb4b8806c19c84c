"""TVC and YC2C: captions of clips as JSON lines, in the form of TVC and of the VALUE benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.eval.errors import FormatError, shown
from weft.eval.metrics.caption import caption_scores
from weft.eval.metrics.report import ScoreReport
from weft.eval.submissions.format import Predictions, References, Submission, id_number, register_submission
from weft.eval.submissions.reading import by_id, read_json_lines

_FOREIGN = re.compile(r"[^\x00-\x7f]")


def _read_gold(path: Path) -> References:
    rows = read_json_lines(path)
    bad = [place for place, row in enumerate(rows, start=1) if not _is_clip(row)]
    if bad:
        raise FormatError(
            f"Each line of {str(path)!r} must have `clip_id` and `descs`, a list of objects with `desc`, but "
            f"{len(bad)} do not: line {shown(bad)}. Write {{'clip_id': 1, 'descs': [{{'desc': '…'}}]}}."
        )
    return by_id(((row["clip_id"], [one["desc"] for one in row["descs"]]) for row in rows), path)


def _is_clip(row: Mapping[str, Any]) -> bool:
    given = row.get("descs")
    return (
        "clip_id" in row
        and isinstance(given, list)
        and bool(given)
        and all(isinstance(one, dict) and isinstance(one.get("desc"), str) for one in given)
    )


def _read_predictions(path: Path) -> Predictions:
    return {key: own[0] for key, own in _read_gold(path).items()}


def _write(predictions: Mapping[Any, Any]) -> str:
    rows = ({"clip_id": id_number(key), "descs": [{"desc": caption}]} for key, caption in predictions.items())
    return "".join(json.dumps(row) + "\n" for row in rows)


def clip_caption_scores(
    predictions: Mapping[Any, str], references: Mapping[Any, Sequence[str]], **options: Any
) -> ScoreReport:
    """Caption scores as TVC's evaluation takes them: characters outside ASCII become spaces first.

    Args:
        predictions: Clip id to caption.
        references: Clip id to captions.
        **options: Passed to `caption_scores`.

    Returns:
        Its report.

    Source: the evaluation code of TVC (Lei et al., ECCV 2020), which VALUE uses too.
    """
    plain = {key: _FOREIGN.sub(" ", caption) for key, caption in predictions.items()}
    wanted = {key: [_FOREIGN.sub(" ", caption) for caption in own] for key, own in references.items()}
    return caption_scores(plain, wanted, **options)


SUBMISSION = register_submission(
    Submission(
        task="clip_caption",
        description='predictions: lines {"clip_id", "descs": [{"desc"}]}; gold: TVC or YC2C JSON lines with `descs`',
        read_predictions=_read_predictions,
        write_predictions=_write,
        read_gold=_read_gold,
        score=clip_caption_scores,
        suffix=".jsonl",
        datasets=("tvc", "yc2c"),
    )
)
