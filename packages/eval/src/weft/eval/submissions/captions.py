"""COCO captions and everything in their form (Flickr30k, NoCaps, TextCaps): result and annotation files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from weft.eval.errors import FormatError
from weft.eval.metrics.caption import caption_scores
from weft.eval.submissions.format import (
    Predictions,
    References,
    Submission,
    id_number,
    register_submission,
    write_objects,
)
from weft.eval.submissions.reading import by_id, read_json, records


def _read_predictions(path: Path) -> Predictions:
    data = read_json(path)
    if isinstance(data, dict) and all(isinstance(value, str) for value in data.values()):
        return by_id(data.items(), path)
    rows = records(data, path, ("image_id", "caption"))
    return by_id(((row["image_id"], row["caption"]) for row in rows), path)


def _read_gold(path: Path) -> References:
    data = read_json(path)
    if isinstance(data, dict) and "annotations" not in data:
        if not all(isinstance(value, list) for value in data.values()):
            raise FormatError(
                f"{str(path)!r} must hold `annotations`, or map image ids to lists of captions, but does neither. "
                "Use the captions file of the split."
            )
        return by_id(data.items(), path)
    rows = records(data["annotations"] if isinstance(data, dict) else data, path, ("image_id", "caption"))
    grouped: dict[str, list[str]] = {}
    for row in rows:
        grouped.setdefault(str(row["image_id"]), []).append(row["caption"])
    return grouped


SUBMISSION = register_submission(
    Submission(
        task="caption",
        description='predictions [{"image_id", "caption"}], gold: a COCO captions annotation file',
        read_predictions=_read_predictions,
        write_predictions=partial(write_objects, key="image_id", value="caption", as_id=id_number),
        read_gold=_read_gold,
        score=caption_scores,
        datasets=("coco_captions",),
    )
)
