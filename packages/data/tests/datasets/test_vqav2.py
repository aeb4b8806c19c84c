import json
from typing import ClassVar

import pytest

from weft.data import MalformedRecordError, load_dataset
from weft.data.datasets._answers import leave_one_out
from weft.data.testing import DatasetContract, image_bytes, write_tree, zip_bytes


def question(number, image=42, text="How many cups are there?"):
    return {"image_id": image, "question_id": number, "question": text}


def annotation(number, answers, kind="number"):
    listed = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": k} for k, answer in enumerate(answers, 1)
    ]
    return {
        "question_id": number,
        "image_id": 42,
        "question_type": "how many",
        "answer_type": kind,
        "multiple_choice_answer": answers[0],
        "answers": listed,
    }


QUESTIONS = {"questions": [question(42001), question(42002, 43)]}
ANNOTATIONS = {
    "annotations": [annotation(42002, ["2"] * 10), annotation(42001, ["2"] * 7 + ["3", "3", "two"])]
}


class TestVQAv2(DatasetContract):
    name = "vqav2"
    split = "val"
    count = 2

    def files(self):
        return {
            "v2_OpenEnded_mscoco_val2014_questions.json": json.dumps(QUESTIONS),
            "v2_mscoco_val2014_annotations.json": json.dumps(ANNOTATIONS),
            "val2014/COCO_val2014_000000000042.jpg": image_bytes(kind="JPEG"),
            "val2014/COCO_val2014_000000000043.jpg": image_bytes(kind="JPEG"),
        }

    def test_answers_join_by_question_id(self, records):
        assert records[0].id == "42001"
        assert records[0].answers.count("3") == 2
        assert records[0].soft_targets == {"2": 1.0, "3": 0.6, "two": 0.3}
        assert (records[0].question_type, records[0].answer_type) == ("how many", "number")


class TestKarpathyForm(DatasetContract):
    name = "vqav2"
    split = "karpathy_test"
    count = 2

    def files(self):
        rows = [
            {
                "question_id": 9000,
                "img_id": "COCO_val2014_000000000042",
                "sent": "What is on the mat?",
                "question_type": "what is",
                "answer_type": "other",
                "label": {"cat": 1, "kitten": 0.3},
                "is_topk_optimal": True,
            },
            {"question_id": 9001, "img_id": "COCO_val2014_000000000042", "question": "Why?", "label": {}},
        ]
        return {
            "vqa/karpathy_test.json": json.dumps(rows),
            "COCO/images/val2014/COCO_val2014_000000000042.jpg": image_bytes(),
        }

    def test_labels_become_soft_targets(self, records):
        assert records[0].soft_targets == {"cat": 1, "kitten": 0.3}
        assert records[0].extra["is_topk_optimal"] is True
        assert records[1].question == "Why?"

    def test_official_annotations_are_joined_where_they_are_there(self, tmp_path):
        truth = {"annotations": [annotation(9000, ["cat"] * 10, "other")]}
        files = {**self.files(), "vqa/v2_mscoco_val2014_annotations.json": json.dumps(truth)}
        assert self.load(write_tree(tmp_path, files))[0].answers == ("cat",) * 10


class TestTestSplit(DatasetContract):
    name = "vqav2"
    split = "test-dev"
    count = 1
    options: ClassVar = {}

    def files(self):
        return {
            "v2_OpenEnded_mscoco_test-dev2015_questions.json": json.dumps({"questions": [question(1, 7)]}),
            "test2015.zip": zip_bytes({"test2015/COCO_test2015_000000000007.jpg": image_bytes()}),
        }

    def test_zip_and_url_give_the_same_records(self, records):
        """Archives inside an archive are not opened; the folder form is tested above."""
        assert records[0].answers == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [annotation(42002, ["2"])]}, "question 42001 must have an annotation"),
        (
            {"annotations": [{"question_id": 42001}, annotation(42002, ["2"])]},
            "must have the field `answers`",
        ),
        ({"answers": []}, "must have the field `annotations`"),
    ],
)
def test_annotations_that_do_not_fit_are_named(tmp_path, change, message):
    tree = dict(TestVQAv2().files())
    tree["v2_mscoco_val2014_annotations.json"] = json.dumps(change)
    with pytest.raises(MalformedRecordError, match=message):
        load_dataset("vqav2", write_tree(tmp_path, tree), "val")


def test_an_odd_image_name_is_named(tmp_path):
    rows = [{"question_id": 1, "img_id": "42", "sent": "?"}]
    tree = {"karpathy_val.json": json.dumps(rows)}
    with pytest.raises(MalformedRecordError, match="`img_id` must look like"):
        load_dataset("vqav2", write_tree(tmp_path, tree), "karpathy_val")


@pytest.mark.parametrize("matches", range(1, 11))
def test_soft_targets_leave_one_annotator_out(matches):
    answers = ["a"] * matches + [f"b{k}" for k in range(10 - matches)]
    by_definition = [min(1.0, sum(answers[j] == "a" for j in range(10) if j != i) / 3) for i in range(10)]
    assert leave_one_out(answers)["a"] == pytest.approx(sum(by_definition) / 10)


def real(realdata, split, name):
    return load_dataset(
        "vqav2",
        realdata / "timbmg+NLP1-2017-VQA",
        split,
        questions=f"data/vqa_questions_{name}.json",
        annotations=f"data/vqa_annotations_{name}.json",
        require_media=False,
    )


def test_the_real_test_questions_parse_to_the_stated_count(realdata):
    records = real(realdata, "test", "test")
    assert len(records) == 2_962
    assert {len(record.answers) for record in records} == {10}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("train", 48_061), ("valid", 8_977)])
def test_the_real_questions_parse_to_the_stated_counts(realdata, name, count):
    records = real(realdata, "train" if name == "train" else "val", name)
    assert len(records) == count
    if name == "valid":
        kinds = [record.answer_type for record in records]
        assert [kinds.count(kind) for kind in ("other", "number", "yes/no")] == [3_082, 2_948, 2_947]
