from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weft.data import Caption, MediaRef, Retrieval, load_dataset
from weft.data.errors import CorruptMediaError
from weft.data.sources.opening import open_store
from weft.eval.evaluate.scoring import reference, score
from weft.eval.metrics.matches import Matches
from weft.eval.report import record_table, tables_in

SIZES = {"vqa": "vqa", "gqa": "gqa", "nlvr": "nlvr", "caption": "caption"}


def scenes(task: str) -> Any:
    return load_dataset("scenes", split="test", task=task, size=12, num_scenes=12)


@pytest.mark.parametrize("task", SIZES)
def test_records_of_every_type_become_a_table_with_pictures(task: str, tmp_path: Path) -> None:
    records = scenes(task)
    said = {record.id: reference(record) for record in records}
    first = records[0].id
    said[first] = "false" if said[first] == "true" else "true"
    report = score(SIZES[task], said, records)
    record_table(task, said, records, report, tmp_path, pictures=4).save(tmp_path)
    table = tables_in(tmp_path)[task]
    rows = {row.id: row for row in table.rows}
    assert rows.keys() == {record.id for record in records}
    assert rows[first].prediction not in rows[first].references
    assert rows[first].score == 0
    assert all((tmp_path / name).is_file() for name in rows[first].pictures)
    assert len(rows[first].pictures) >= 1
    assert sum(bool(row.pictures) for row in table.rows) == 4


def test_the_best_score_of_a_caption_is_that_of_cider_whatever_is_shown_first(tmp_path: Path) -> None:
    records = scenes("caption")
    said = {record.id: record.captions[0] for record in records}
    for headline in ("CIDEr", "exact"):
        report = score("caption", said, records, headline=headline)
        assert record_table("caption", said, records, report, tmp_path, pictures=0).best == 10


def test_retrieval_shows_the_nearest_text_of_every_image(tmp_path: Path) -> None:
    media = [replace(record.media, path=record.media.path) for record in scenes("caption")[:2]]
    records = [
        Retrieval(id=str(k), media=media[k // 2], media_id=f"i{k // 2}", text=f"text {k}", text_id=f"t{k}")
        for k in range(4)
    ]
    eye = np.eye(2, dtype=np.float32)
    matches = Matches(("t0", "t1", "t2", "t3"), ("i0", "i1"), eye[[1, 1, 0, 1]], eye)
    report = score("retrieval", matches, records)
    table = record_table("retrieval", matches, records, report, tmp_path)
    assert [(row.id, row.prediction, row.references) for row in table.rows] == [
        ("i0", "text 2", ("text 0", "text 1")),
        ("i1", "text 0", ("text 2", "text 3")),
    ]
    assert [row.score for row in table.rows] == [0, 0]
    assert all(row.pictures for row in table.rows)


def test_a_video_has_no_picture(tmp_path: Path) -> None:
    video = MediaRef.from_bytes(b"no video", kind="video")
    records = [Caption(id=str(k), media=video, media_id=str(k), captions=("a b c",)) for k in range(3)]
    said = {record.id: "a b c" for record in records}
    table = record_table("caption", said, records, score("caption", said, records), tmp_path)
    assert [row.pictures for row in table.rows] == [(), (), ()]


def test_an_image_that_is_not_there_has_no_picture_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    files = open_store(str(tmp_path))
    for name, pictures in (("absent.png", 1), ("broken.png", 1)):
        media = MediaRef(name, files)
        records = [Caption(id=str(k), media=media, media_id=str(k), captions=("a b c",)) for k in range(3)]
        said = {record.id: "a b c" for record in records}
        report = score("caption", said, records)
        if name == "absent.png":
            table = record_table("caption", said, records, report, tmp_path / "out", pictures=pictures)
            assert not any(row.pictures for row in table.rows)
        else:
            with pytest.raises(CorruptMediaError, match=r"broken\.png"):
                record_table("caption", said, records, report, tmp_path / "out", pictures=pictures)
