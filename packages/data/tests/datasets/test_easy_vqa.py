import json

import pytest

from weft.data import MalformedRecordError, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree, zip_bytes

QUESTIONS = [["what shape is it?", "circle", 0], ["is it red?", "yes", 0], ["what colour?", "blue", 1]]


class TestEasyVQA(DatasetContract):
    name = "easy_vqa"
    count = 3

    def files(self):
        images = {f"easy_vqa/data/train/images/{k}.png": image_bytes() for k in range(2)}
        return {"easy_vqa/data/train/questions.json": json.dumps(QUESTIONS), **images}

    def test_fields_follow_the_official_rows(self, records):
        assert (records[1].question, records[1].answers, records[1].image_id) == ("is it red?", ("yes",), "0")
        assert [record.answer_type for record in records] == ["other", "yes/no", "other"]
        assert records[2].soft_targets == {"blue": 1.0}


def test_images_may_stay_in_their_zip(tmp_path):
    inner = zip_bytes({f"train/images/{k}.png": image_bytes() for k in range(2)})
    tree = {"train/questions.json": json.dumps(QUESTIONS), "train/images.zip": inner}
    records = load_dataset("easy_vqa", write_tree(tmp_path, tree))
    assert records[2].image.image().size == (12, 8)


def test_a_malformed_row_is_named(tmp_path):
    tree = {
        "train/questions.json": json.dumps([*QUESTIONS, ["no image"]]),
        "train/images/0.png": image_bytes(),
    }
    root = write_tree(tmp_path, tree)
    with pytest.raises(MalformedRecordError, match=r"questions\.json, row 4"):
        load_dataset("easy_vqa", root)
    lenient = load_dataset("easy_vqa", root, on_error="skip")
    assert (len(lenient), len(lenient.skipped)) == (3, 1)


def test_the_real_files_parse_to_the_official_counts(realdata):
    test = load_dataset("easy_vqa", realdata / "vzhou842+easy-VQA", "test")
    assert len(test) == 9_673
    assert len({record.image_id for record in test}) == 1_000
    assert len({record.answers[0] for record in test}) == 13
    assert test[-1].image.image().size == (64, 64)


@pytest.mark.slow
def test_the_real_training_files_parse_to_the_official_counts(realdata):
    assert len(load_dataset("easy_vqa", realdata / "vzhou842+easy-VQA", "train")) == 38_575


@pytest.mark.parametrize("content", [{"0": QUESTIONS[0]}, "questions", 5, None])
def test_a_file_that_is_no_list_of_rows_is_named(tmp_path, content):
    tree = {"train/questions.json": json.dumps(content), "train/images/0.png": image_bytes()}
    with pytest.raises(MalformedRecordError, match=r"questions\.json must be a list, one entry for each row"):
        load_dataset("easy_vqa", write_tree(tmp_path, tree))
