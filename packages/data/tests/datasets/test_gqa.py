import json

import pytest

from weft.data import MalformedRecordError, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree

ENTRY = {
    "question": "Is the cup red?",
    "imageId": "n1",
    "answer": "no",
    "fullAnswer": "No, the cup is blue.",
    "isBalanced": True,
    "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
    "groups": {"global": None, "local": "10c-cup_color"},
    "entailed": ["201"],
    "equivalent": ["200"],
    "semantic": [{"operation": "select", "dependencies": [], "argument": "cup (12)"}],
}
IMAGE = {"images/n1.jpg": image_bytes(kind="JPEG")}


class TestGQA(DatasetContract):
    name = "gqa"
    split = "val_balanced"
    count = 2

    def files(self):
        hidden = {key: value for key, value in ENTRY.items() if key != "answer"}
        return {
            "questions1.2/val_balanced_questions.json": json.dumps({"200": ENTRY, "201": hidden}),
            **IMAGE,
        }

    def test_official_fields_stay_for_the_metric(self, records):
        assert (records[0].id, records[0].answers, records[0].question_type) == ("200", ("no",), "verify")
        assert records[0].extra["entailed"] == ["201"]
        assert records[0].extra["isBalanced"] is True
        assert records[1].answers == ()


class TestShards(DatasetContract):
    name = "gqa"
    split = "train_all"
    count = 12

    def files(self):
        folder = "train_all_questions"
        shards = {f"{folder}/{folder}_{k}.json": json.dumps({str(k): ENTRY}) for k in range(12)}
        return {**shards, **IMAGE}

    def test_shards_come_in_numeric_order(self, records):
        assert [record.id for record in records] == [str(k) for k in range(12)]


class TestListForm(DatasetContract):
    name = "gqa"
    split = "vlt5_testdev"
    count = 1

    def files(self):
        row = {
            "img_id": "n1",
            "label": {"pipe": 1.0},
            "question_id": "07333408",
            "sent": "What is on the wall?",
        }
        return {"GQA/testdev.json": json.dumps([row]), "GQA/images/n1.jpg": image_bytes()}

    def test_the_label_is_the_answer(self, records):
        assert (records[0].id, records[0].answers) == ("07333408", ("pipe",))


def test_a_list_where_an_object_belongs_is_named(tmp_path):
    with pytest.raises(MalformedRecordError, match="must be an object keyed by question id"):
        load_dataset("gqa", write_tree(tmp_path, {"val_all_questions.json": "[]"}), "val_all")


@pytest.mark.parametrize(
    ("path", "questions", "images"),
    [("en/dev", 1_422, 50), ("de/train_10", 317, 10), ("en/train_48", 1_490, 48)],
)
def test_real_files_in_the_same_format_parse_to_the_stated_counts(realdata, path, questions, images):
    records = load_dataset(
        "gqa",
        realdata / "Adapter-Hub+xGQA",
        "testdev_balanced",
        questions=f"data/few_shot/{path}.json",
        require_media=False,
    )
    assert (len(records), len({record.image_id for record in records})) == (questions, images)
