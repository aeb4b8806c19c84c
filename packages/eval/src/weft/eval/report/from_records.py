"""Prediction tables straight from records: what was asked, what is right, which group, which picture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weft.data import Record, Retrieval
from weft.data.sources.store import BytesStore
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.scoring import record_groups
from weft.eval.metrics.report import ScoreReport
from weft.eval.report.predictions import PredictionTable, prediction_table

if TYPE_CHECKING:
    from weft.eval.metrics.matches import Matches


def record_table(
    task: str,
    predictions: Mapping[str, str] | Matches,
    records: Sequence[Record],
    report: ScoreReport,
    folder: Path | str,
    *,
    pictures: int = 60,
) -> PredictionTable:
    """Put the predictions of one task beside its records, and keep small pictures of some.

    For retrieval a row is an image: its prediction is the text that is most similar to it, its references are
    its own texts. Videos have no picture.

    Args:
        task: Name of the task.
        predictions: What `weft.eval.evaluate.predict.predict` returned.
        records: The records.
        report: The report of these predictions.
        folder: Where pictures are written; `save` the table into the same folder.
        pictures: For how many samples pictures are kept.

    Raises:
        ScoreInputError: The report was made from other records.
        CorruptMediaError: A picture does not decode.
    """
    kind, shown, questions = kind_of(records), dict[str, Record](), dict[str, str]()
    references: dict[str, list[str]] = {}
    if isinstance(predictions, Mapping):
        shown |= {record.id: record for record in records}
        references |= {name: list(record.references()) for name, record in shown.items()}
        questions |= {name: kind.text(record) for name, record in shown.items()}
    else:
        pairs = [record for record in records if isinstance(record, Retrieval)]
        texts = {pair.text_id: pair.text for pair in pairs}
        for pair in pairs:
            shown[pair.media_id] = pair
            references.setdefault(pair.media_id, []).append(pair.text)
        nearest = predictions.ranked(best=1)["image_to_text"]
        predictions = {image: texts[found[0]] for image, found in nearest.items()}
    return prediction_table(
        task,
        predictions,
        references,
        report,
        questions=questions,
        groups={
            axis: {name: members[record.id] for name, record in shown.items()}
            for axis, members in record_groups(records).items()
        },
        images={
            name: [media for media in record.media_refs() if media.kind == "image"]
            for name, record in shown.items()
        },
        media={name: _shown(record) for name, record in shown.items()},
        folder=folder,
        pictures=pictures,
    )


def _shown(record: Record) -> str:
    """Digest of which media a record shows: by content where they are in a table, else by name and span.

    Names are those within the data set, so that a copy of it elsewhere has the same ones.
    """
    names = [
        media.identity
        if isinstance(media.store, BytesStore)
        else (media.path, media.kind, media.start, media.end)
        for media in record.media_refs()
    ]
    return hashlib.sha256(repr(names).encode()).hexdigest()[:16] if names else ""
