import io
import json
import unicodedata
from typing import ClassVar

import pyarrow
import pyarrow.parquet
import pytest

from weft.data import (
    Caption,
    Classify,
    ImageQA,
    InvalidArgumentError,
    MalformedRecordError,
    MissingFileError,
    PairBool,
    UnknownNameError,
    VideoMC,
    load_dataset,
)
from weft.data.testing import DatasetContract, image_bytes, write_tree

CSV = "picture,q,a,note\nimg/0.png,what is it?,cat,x\nimg/1.png,which colour?,red,y\n"
COLUMNS = {"image": "picture", "question": "q", "answers": "a"}
IMAGES = {f"img/{k}.png": image_bytes() for k in range(2)}


class TestTable(DatasetContract):
    name = "table"
    count = 2
    options: ClassVar = {"columns": COLUMNS}

    def files(self):
        return {"train.csv": CSV, **IMAGES}

    def test_columns_become_fields_and_the_rest_stays(self, records):
        first = records[0]
        assert isinstance(first, ImageQA)
        assert (first.question, first.answers, first.image_id) == ("what is it?", ("cat",), "img/0.png")
        assert first.extra == {"note": "x"}

    def test_the_table_itself_may_be_the_root(self, tmp_path):
        root = write_tree(tmp_path, self.files())
        assert len(self.load(str(root / "train.csv"), split="anything")) == 2
        with pytest.raises(MissingFileError, match=r"none\.csv"):
            self.load(str(root / "none.csv"))


def load(tmp_path, name, content, **options):
    root = write_tree(tmp_path, {name: content, **IMAGES})
    return load_dataset("table", root, "train", **options)


def test_json_lines_with_captions(tmp_path):
    rows = [
        {"id": 5, "media": "img/0.png", "captions": ["a", "b"]},
        {"id": 6, "media": "img/1.png", "captions": "c"},
    ]
    records = load(tmp_path, "train.jsonl", "\n".join(map(json.dumps, rows)), record="caption")
    assert isinstance(records[0], Caption)
    assert [(record.id, record.captions) for record in records] == [("5", ("a", "b")), ("6", ("c",))]
    assert records.record_type == "caption"


def test_pairs_from_two_columns_in_a_tsv(tmp_path):
    content = "left\tright\tsentence\tlabel\nimg/0.png\timg/1.png\tboth\tTrue\n"
    records = load(tmp_path, "train.tsv", content, record="pair_bool", columns={"images": ["left", "right"]})
    assert isinstance(records[0], PairBool)
    assert records[0].label is True
    assert [image.path for image in records[0].images] == ["img/0.png", "img/1.png"]


def test_classes_are_numbered_by_name_or_in_the_order_given(tmp_path):
    content = "image,class_name\nimg/0.png,dog\nimg/1.png,cat\n"
    records = load(tmp_path, "train.csv", content, record="classify")
    assert isinstance(records[0], Classify)
    assert [record.label for record in records] == [1, 0]
    assert [
        r.label for r in load(tmp_path, "train.csv", content, record="classify", classes=["dog", "cat"])
    ] == [0, 1]
    with pytest.raises(MalformedRecordError, match="`class_name` must be one of dog, but is 'cat'"):
        load(tmp_path, "train.csv", content, record="classify", classes=["dog"])


def test_multiple_choice_about_videos(tmp_path):
    row = {"video": "v.mp4", "question": "q", "options": ["a", "b"], "answer": "1", "media_id": "v"}
    records = load(tmp_path, "train.jsonl", json.dumps(row), record="video_mc")
    assert isinstance(records[0], VideoMC)
    assert (records[0].answer, records[0].video.kind) == (1, "video")


def test_parquet_with_embedded_images(tmp_path):
    table = pyarrow.table(
        {
            "image": [
                {"bytes": image_bytes(size=(3, 5)), "path": None},
                {"bytes": None, "path": "img/0.png"},
            ],
            "question": ["q", "r"],
            "answers": [["yes"], ["no"]],
        }
    )
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    records = load(tmp_path, "train.parquet", stream.getvalue())
    assert records[0].image.image().size == (3, 5)
    assert records[1].image.path == "img/0.png"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"record": "imageqa"}, UnknownNameError, "record type: 'imageqa'. Did you mean 'image_qa'"),
        ({"columns": {"questoin": "q"}}, UnknownNameError, "field of image_qa in `columns`: 'questoin'"),
        ({"columns": {"image": "picture"}}, MalformedRecordError, "must have the column `question`"),
        ({"columns": {**COLUMNS, "image": "pic"}}, MalformedRecordError, "must have the field `pic`"),
        ({"file": "other.csv"}, MissingFileError, "other.csv"),
        ({"file": "img/0.png"}, InvalidArgumentError, "`file` must end in one of .csv"),
    ],
)
def test_wrong_tables_and_mappings_are_refused(tmp_path, options, error, message):
    with pytest.raises(error) as caught:
        load(tmp_path, "train.csv", CSV, **{"columns": COLUMNS, **options})
    assert message in str(caught.value)


def test_an_empty_image_cell_is_named(tmp_path):
    with pytest.raises(MalformedRecordError, match="row 2: `image` must be a path, bytes"):
        load(tmp_path, "train.csv", "image,question\n,what?\n")


def test_a_row_that_is_no_object_is_named(tmp_path):
    with pytest.raises(MalformedRecordError, match="row 1: must be an object with named columns"):
        load(tmp_path, "train.jsonl", "[1, 2]\n")


def test_a_broken_parquet_file_is_named(tmp_path):
    with pytest.raises(MalformedRecordError, match=r"train\.parquet must be a Parquet file"):
        load(tmp_path, "train.parquet", b"PAR0")


def animals(*names, start="image,class_name\n"):
    return start + "".join(f"img/0.png,{name}\n" for name in names)


@pytest.fixture
def two_splits(tmp_path):
    return write_tree(
        tmp_path, {"train.csv": animals("dog", "cat", "fox"), "test.csv": animals("fox", "cat"), **IMAGES}
    )


def classified(root, split, **options):
    return load_dataset("table", root, split, record="classify", **options)


def test_classes_are_numbered_by_the_training_split(two_splits):
    test = classified(two_splits, "test")
    assert {record.class_name: record.label for record in test} == {"cat": 0, "fox": 2}
    assert test.class_names == classified(two_splits, "train").class_names == ["cat", "dog", "fox"]
    assert [r.label for r in classified(two_splits / "test.csv", "anything")] == [2, 0]
    assert [r.label for r in classified(two_splits, "test", file="test.csv")] == [2, 0]


def test_training_labels_number_the_names_of_other_splits(two_splits):
    labelled = "image,class_name,label\nimg/0.png,fox,7\nimg/0.png,cat,3\n"
    (two_splits / "train.csv").write_text(labelled)
    assert [r.label for r in classified(two_splits, "test")] == [7, 3]


def test_a_class_that_only_the_test_split_has_is_refused_by_name(two_splits):
    (two_splits / "test.csv").write_text(animals("fox", "wolf"))
    with pytest.raises(
        MalformedRecordError, match=r"row 3: `class_name` must be one of cat, dog, fox, but is 'wolf'"
    ):
        classified(two_splits, "test")
    assert len(classified(two_splits, "test", on_error="skip")) == 1


def test_classes_may_stand_in_another_table(two_splits):
    write_tree(
        two_splits,
        {"all.csv": animals("ant", "cat", "dog", "fox"), "lists/classes.tsv": "class_name\nfox\ncat\n"},
    )
    assert [r.label for r in classified(two_splits, "test", classes="all.csv")] == [3, 1]
    assert [r.label for r in classified(two_splits, "test", classes="lists/classes.tsv")] == [1, 0]
    with pytest.raises(MissingFileError, match=r"none\.csv"):
        classified(two_splits, "test", classes="none.csv")


def test_classes_that_nothing_tells_are_asked_for(two_splits):
    (two_splits / "train.csv").rename(two_splits / "learn.csv")
    with pytest.raises(
        InvalidArgumentError, match=r"`classes` must be given for split 'test', because .*test\.csv names"
    ):
        classified(two_splits, "test")
    assert [r.label for r in classified(two_splits, "train", file="learn.csv")] == [1, 0, 2]
    assert [r.label for r in classified(two_splits, "test", classes="learn.csv")] == [2, 0]
    with pytest.raises(InvalidArgumentError, match="`classes` must not repeat a class"):
        classified(two_splits, "test", classes=["cat", "cat"])


def test_a_row_without_class_is_no_class(two_splits):
    (two_splits / "train.csv").write_text(animals("dog", "", "cat"))
    with pytest.raises(MalformedRecordError, match=r"row 3: `class_name` must be one of cat, dog, but is ''"):
        classified(two_splits, "train")


def test_names_that_differ_in_composed_accents_are_one_class(two_splits):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    (two_splits / "train.csv").write_text(animals(composed, "zebra"), encoding="utf-8")
    (two_splits / "test.csv").write_text(animals(apart), encoding="utf-8")
    (record,) = classified(two_splits, "test")
    assert (record.label, record.class_name) == (0, composed)
