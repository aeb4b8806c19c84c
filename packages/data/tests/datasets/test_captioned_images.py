import json
from typing import ClassVar

import pytest

from weft.data import MalformedRecordError, Retrieval, UnknownNameError, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree


def entry(number, split, folder="val2014"):
    name = f"COCO_{folder}_{number:012d}.jpg"
    sentences = [
        {"tokens": ["a"], "raw": f"A cup {k}.", "imgid": 0, "sentid": number * 10 + k} for k in range(5)
    ]
    return {
        "filepath": folder,
        "filename": name,
        "imgid": 0,
        "cocoid": number,
        "split": split,
        "sentids": [],
        "sentences": sentences,
    }


ENTRIES = [entry(42, "test"), entry(43, "restval"), entry(44, "train", "train2014")]
COCO_IMAGES = {f"{e['filepath']}/{e['filename']}": image_bytes(kind="JPEG") for e in ENTRIES}
COCO = {"dataset_coco.json": json.dumps({"images": ENTRIES}), **COCO_IMAGES}


class TestCocoCaptions(DatasetContract):
    name = "coco_captions"
    count = 2

    def files(self):
        return COCO

    def test_restval_belongs_to_training_unless_left_out(self, records, tmp_path):
        assert [record.id for record in records] == ["43", "44"]
        assert len(records[0].captions) == 5
        assert len(self.load(tmp_path / "root", restval=False)) == 1


class TestCocoRetrieval(DatasetContract):
    name = "coco_captions"
    split = "test"
    count = 5
    options: ClassVar = {"task": "retrieval"}

    def files(self):
        return COCO

    def test_five_texts_share_one_image(self, records):
        assert isinstance(records[0], Retrieval)
        assert {record.media_id for record in records} == {"42"}
        assert len({record.text_id for record in records}) == 5


class TestOfficialForm(DatasetContract):
    name = "coco_captions"
    split = "val2014"
    count = 2

    def files(self):
        content = {
            "images": [{"id": 42}, {"id": 43, "file_name": "COCO_val2014_000000000043.jpg"}],
            "annotations": [{"image_id": k, "id": j, "caption": "a"} for j, k in enumerate([43, 42, 42])],
        }
        return {"annotations/captions_val2014.json": json.dumps(content), **COCO_IMAGES}

    def test_captions_join_by_image(self, records, tmp_path):
        assert [len(record.captions) for record in records] == [2, 1]
        pairs = self.load(tmp_path / "root", task="retrieval")
        assert [pair.text_id for pair in pairs] == ["1", "2", "0"]


class TestBlipTraining(DatasetContract):
    name = "coco_captions"
    count = 2
    options: ClassVar = {"form": "blip"}

    def files(self):
        path = "train2014/COCO_train2014_000000000044.jpg"
        rows = [{"image": path, "caption": text, "image_id": "coco_44"} for text in ("a cup", "one cup")]
        return {"coco_karpathy_train.json": json.dumps(rows), **COCO_IMAGES}

    def test_each_caption_is_a_record(self, records):
        assert [record.captions for record in records] == [("a cup",), ("one cup",)]
        assert len({record.media_id for record in records}) == 1


class TestBlipEvaluation(DatasetContract):
    name = "coco_captions"
    split = "test"
    count = 3
    options: ClassVar = {"task": "retrieval"}

    def files(self):
        rows = [{"image": "val2014/COCO_val2014_000000000042.jpg", "caption": ["a", "b", "c"]}]
        return {"coco_karpathy_test.json": json.dumps(rows), **COCO_IMAGES}

    def test_all_captions_of_an_image_are_positives(self, records):
        assert [record.text for record in records] == ["a", "b", "c"]


class TestFlickr30k(DatasetContract):
    name = "flickr30k"
    split = "val"
    count = 2

    def files(self):
        row = {
            "filename": "1.jpg",
            "imgid": 0,
            "split": "val",
            "sentences": [{"raw": "a dog runs", "sentid": 0}, {"raw": "a dog"}],
        }
        images = {"flickr30k-images/1.jpg": image_bytes(kind="JPEG")}
        return {"dataset_flickr30k.json": json.dumps({"images": [row, {**row, "split": "test"}]}), **images}

    def test_captioning_groups_them(self, records, tmp_path):
        assert [record.text_id for record in records] == ["0", "1.1"]
        assert self.load(tmp_path / "root", task="caption")[0].captions == ("a dog runs", "a dog")


class TestFlickrBlip(DatasetContract):
    name = "flickr30k"
    count = 1

    def files(self):
        rows = [{"image": "flickr30k-images/1.jpg", "caption": "a dog runs", "image_id": "flickr_1"}]
        return {"flickr30k_train.json": json.dumps(rows), "flickr30k-images/1.jpg": image_bytes()}

    def test_only_the_name_of_the_file_counts(self, records):
        assert records[0].media_id == "1"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("coco_captions", {"task": "vqa"}, "task of coco_captions"),
        ("coco_captions", {"form": "karpaty"}, "form of coco_captions: 'karpaty'. Did you mean 'karpathy'"),
        ("flickr30k", {"task": "captions"}, "task of flickr30k"),
    ],
)
def test_unknown_tasks_and_forms_are_refused(tmp_path, name, options, message):
    with pytest.raises(UnknownNameError) as caught:
        load_dataset(name, tmp_path, **options)
    assert message in str(caught.value)


def test_an_image_without_captions_is_named(tmp_path):
    bad = {**entry(42, "test"), "sentences": []}
    tree = {"dataset_coco.json": json.dumps({"images": [bad]}), **COCO_IMAGES}
    with pytest.raises(MalformedRecordError, match="`sentences` must not be empty"):
        load_dataset("coco_captions", write_tree(tmp_path, tree), "test")
    official = {"images": [{"id": 9}], "annotations": []}
    write_tree(tmp_path, {"captions_val2014.json": json.dumps(official)})
    with pytest.raises(MalformedRecordError, match="image 9 must have a caption"):
        load_dataset("coco_captions", tmp_path, "val2014")
