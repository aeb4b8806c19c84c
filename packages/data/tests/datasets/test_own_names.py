"""Images and tables named as their owners name them: JSON, lists, `metadata` beside images, patterns of paths."""

import json
import unicodedata
from typing import ClassVar

import pytest

from weft.data import (
    Caption,
    InvalidArgumentError,
    MalformedRecordError,
    MissingFileError,
    UnknownNameError,
    UnsafePathError,
    load_dataset,
)
from weft.data.checks import check_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree

WIDE, TALL = image_bytes((200, 0, 0), (60, 40)), image_bytes((0, 200, 0), (30, 96))
IMAGES = {"0001.png": WIDE, "0002.png": TALL}


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestTableOfJson(DatasetContract):
    name = "table"
    count = 2

    def files(self):
        rows = [
            {"image": "0001.png", "question": "how many?", "answers": 3},
            {"image": ["0002.png"], "question": "how long?", "answers": [2.5, "two and a half", 3.0]},
        ]
        return {"train.json": json.dumps(rows), **IMAGES}

    def test_numbers_are_answers_as_they_are_written(self, records):
        assert [record.answers for record in records] == [("3",), ("2.5", "two and a half", "3")]
        assert records[1].image.image().size == (30, 96)


def table(folder, row, **options):
    root = write_tree(folder, {"train.json": json.dumps([row]), **IMAGES})
    return load_dataset("table", root, "train", **options)


def test_a_column_of_lists_shows_several_images(tmp_path):
    row = {"images": ["0002.png", "0001.png"], "sentence": "s", "label": True}
    (record,) = table(tmp_path, row, record="pair_bool")
    assert [ref.path for ref in record.images] == ["0002.png", "0001.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"image": ["0001.png", "0002.png"]},
            "`image` must be one image, .* list of 2: take `record: conversation`",
        ),
        ({"image": []}, "`image` must be one image, .* list of 0"),
        ({"answers": True}, "`answers` must be text or a number, or a list of them, but is True"),
        ({"answers": [None]}, "`answers` must be text or a number"),
        ({"answers": float("inf")}, "`answers` must be text or a number"),
    ],
)
def test_a_cell_of_another_kind_is_named_with_file_and_row(tmp_path, row, message):
    with pytest.raises(MalformedRecordError, match=rf"train\.json, row 1: {message}"):
        table(tmp_path, {"image": "0001.png", "question": "?", "answers": "y", **row})


def test_json_that_is_no_list_is_named(tmp_path):
    root = write_tree(tmp_path, {"train.json": "{}"})
    with pytest.raises(MalformedRecordError, match=r"train\.json must be a list of objects.* but is dict"):
        load_dataset("table", root, "train")
    assert [split.split for split in check_dataset("table", root).splits] == ["train"]


def test_a_path_that_leaves_the_folder_is_named_with_file_and_row(tmp_path):
    with pytest.raises(UnsafePathError, match=r"train\.json, row 1: `path` must stay inside"):
        table(tmp_path, {"image": "../a.png", "question": "?"})


class TestDescribedImages(DatasetContract):
    name = "image_folder"
    count = 2
    options: ClassVar = {"record": "caption", "columns": {"captions": "text"}}

    def files(self):
        rows = [
            {"file_name": "0001.png", "text": "a red thing", "taken": 2020},
            {"file_name": "tall/0002.png", "text": ["a green thing", "a tall one"]},
        ]
        return {
            "train/metadata.jsonl": jsonl(*rows),
            "train/0001.png": WIDE,
            "train/tall/0002.png": TALL,
            "test/metadata.csv": "file_name,text\n0003.png,blue\n",
            "test/0003.png": WIDE,
        }

    def test_rows_of_metadata_say_what_images_show(self, records, tmp_path):
        assert all(isinstance(record, Caption) for record in records)
        assert [record.id for record in records] == ["train/0001.png", "train/tall/0002.png"]
        assert records[1].captions == ("a green thing", "a tall one")
        assert records[0].extra == {"taken": 2020}
        assert records[1].media.image().size == (30, 96)
        assert self.load(tmp_path / "root", split="test")[0].captions == ("blue",)
        checked = check_dataset("image_folder", tmp_path / "root", **self.options)
        assert [(split.split, split.found, split.ok) for split in checked.splits] == [
            ("test", 1, True),
            ("train", 2, True),
        ]


def test_metadata_at_the_root_is_all_there_is(tmp_path):
    rows = [{"file_name": "0001.png", "q": "?", "a": 1}, {"file_name": "0001.png", "q": "!", "a": 2}]
    root = write_tree(tmp_path, {"metadata.jsonl": jsonl(*rows), **IMAGES})
    options = {"record": "image_qa", "columns": {"question": "q", "answers": "a"}}
    records = load_dataset("image_folder", root, "all", **options)
    assert [(record.id, record.answers) for record in records] == [
        ("0001.png", ("1",)),
        ("metadata.jsonl#2", ("2",)),
    ]
    assert records.notes == ("1 images are in no row of `metadata`, such as 0002.png.",)
    assert [split.split for split in check_dataset("image_folder", root, **options).splits] == ["all"]


def test_metadata_may_name_several_images_of_a_conversation(tmp_path):
    row = {"file_names": ["0001.png", "0002.png"], "prompt": "<image><image>same?", "completion": "no"}
    root = write_tree(tmp_path, {"metadata.jsonl": jsonl(row), **IMAGES})
    (record,) = load_dataset("image_folder", root, "all", record="conversation")
    assert [ref.path for ref in record.images] == ["0001.png", "0002.png"]


def test_a_path_that_no_file_system_can_hold_is_a_malformed_row(tmp_path):
    row = {"image": "\ud83d.png", "question": "q", "answers": ["a"]}
    root = write_tree(tmp_path, {"train.json": json.dumps([row])})
    with pytest.raises(MalformedRecordError, match=r"row 1: `image` must be text that UTF-8 can write"):
        load_dataset("table", root, "train")


def test_classes_of_metadata_are_told_by_names_however_their_accents_are_composed(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    row = {"file_name": "0001.png", "class_name": composed}
    root = write_tree(tmp_path, {"metadata.jsonl": jsonl(row), **IMAGES})
    records = load_dataset("image_folder", root, "all", record="classify", classes=["bar", apart])
    assert [(record.label, record.class_name) for record in records] == [(1, composed)]
    assert records.class_names == ["bar", composed]


def test_metadata_beside_folders_of_classes_is_noted(tmp_path):
    root = write_tree(tmp_path, {"cat/a.png": WIDE, "cat/metadata.csv": "file_name,text\na.png,x\n"})
    (note,) = load_dataset("image_folder", root, "all").notes
    assert "what `metadata` says of the images is not read. Pass record=caption" in note


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        (
            [{"text": "x"}],
            {},
            MalformedRecordError,
            r"metadata\.jsonl, row 1: must have the field `file_name`",
        ),
        (
            [{"file_name": "../x.png"}],
            {},
            UnsafePathError,
            r"metadata\.jsonl, row 1: `path` must stay inside",
        ),
        ([{"file_names": []}], {}, MalformedRecordError, "`file_names` must name an image, but is empty"),
        ([], {"columns": {"pictures": "x"}}, UnknownNameError, "field of caption in `columns`: 'pictures'"),
        ([], {"record": None, "columns": {}}, InvalidArgumentError, "`record` must say of which type"),
        ([], {"classes": "leaf"}, InvalidArgumentError, "`classes` must be a list beside `record`"),
    ],
)
def test_bad_metadata_is_named(tmp_path, rows, options, error, message):
    root = write_tree(tmp_path, {"metadata.jsonl": jsonl(*(rows or [{"file_name": "0001.png"}])), **IMAGES})
    with pytest.raises(error, match=message):
        load_dataset("image_folder", root, "all", **{"record": "caption", **options})


def test_a_split_without_metadata_names_what_was_tried(tmp_path):
    root = write_tree(tmp_path, {"train/0001.png": WIDE})
    with pytest.raises(MissingFileError, match=r"(?s)train/metadata\.jsonl.*train/metadata\.csv.*How to get"):
        load_dataset("image_folder", root, "train", record="caption")


QUESTIONS = {
    "questions": [
        {"question_id": 10, "image_id": 1, "question": "what colour?", "file_name": "0001.png"},
        {"question_id": 20, "image_id": 2, "question": "what colour?", "file_name": "0002.png"},
    ]
}


class TestOwnVQA(DatasetContract):
    name = "vqav2"
    split = "val"
    count = 2
    options: ClassVar = {
        "questions": "my_questions.json",
        "annotations": "my_annotations.json",
        "images": "images/{image_id:04}.png",
    }

    def files(self):
        truths = [
            {"question_id": row["question_id"], "answers": [{"answer": "red"}] * 10}
            for row in QUESTIONS["questions"]
        ]
        return {
            "my_questions.json": json.dumps(QUESTIONS),
            "my_annotations.json": json.dumps({"annotations": truths}),
            **{f"images/{name}": data for name, data in IMAGES.items()},
        }

    def test_images_are_found_by_the_pattern(self, records, tmp_path):
        assert [record.image.path for record in records] == ["images/0001.png", "images/0002.png"]
        other = self.load(tmp_path / "root", images="images/{file_name}")
        assert other.media_fingerprint() == records.media_fingerprint()
        assert other[1].image.image().size == (30, 96)

    @pytest.mark.parametrize(
        ("images", "error", "message"),
        [
            (
                "images/{image_id:05}.png",
                MalformedRecordError,
                r"questions\.json, row 1: its image must be at .*00001",
            ),
            (
                "images/{name}.png",
                MalformedRecordError,
                r"questions\.json, row 1: must have the field `name`",
            ),
            ("../{file_name}", UnsafePathError, r"questions\.json, row 1: `path` must stay inside"),
            (
                "images/a.png",
                InvalidArgumentError,
                "`images` must be a path with fields .* it names no field",
            ),
            ("{image_id:x}", InvalidArgumentError, "`images` must be a path with fields"),
            ("{image_id.real}", InvalidArgumentError, "`images` must be a path with fields"),
            ("{image_id!r}", InvalidArgumentError, "`images` must be a path with fields"),
            ("{image_id", InvalidArgumentError, "`images` must be a path with fields"),
        ],
    )
    def test_a_pattern_that_names_no_image_is_refused(self, tmp_path, images, error, message):
        with pytest.raises(error, match=message):
            self.load(write_tree(tmp_path, self.files()), images=images)


def test_hidden_answers_need_no_annotations(tmp_path):
    root = write_tree(tmp_path, {"mine.json": json.dumps(QUESTIONS), **IMAGES})
    options = {"questions": "mine.json", "images": "{image_id:04}.png"}
    records = load_dataset("vqav2", root, "test", **options)
    assert [record.references() for record in records] == [(), ()]
    for name in IMAGES:
        (root / name).unlink()
    assert len(load_dataset("vqav2", root, "test", require_media=False, **options)) == 2
