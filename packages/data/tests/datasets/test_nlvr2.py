import json

import pytest

from weft.data import MalformedRecordError, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree

PHOTOS = {
    f"images/{folder}{split}-850-{pair}-img{k}.png": image_bytes(kind="JPEG")
    for split, folder in (("dev", "dev/"), ("train", "train/57/"))
    for pair in (0, 1)
    for k in (0, 1)
}


def row(identifier, label="False", **more):
    return {"identifier": identifier, "sentence": "The right image shows a cup.", "label": label, **more}


class TestNLVR2(DatasetContract):
    name = "nlvr2"
    split = "dev"
    count = 3

    def files(self):
        rows = [row("dev-850-0-0"), row("dev-850-1-0", "True"), row("dev-850-0-1")]
        return {"nlvr2/data/dev.json": "\n".join(map(json.dumps, rows)), **PHOTOS}

    def test_the_pair_number_does_not_count_for_the_group(self, records):
        assert [record.group_id for record in records] == ["dev-850-0", "dev-850-0", "dev-850-1"]
        assert [record.label for record in records] == [False, True, False]
        assert [image.path for image in records[1].images] == [
            f"images/dev/dev-850-1-img{k}.png" for k in (0, 1)
        ]


class TestTraining(DatasetContract):
    name = "nlvr2"
    split = "train"
    count = 1

    def files(self):
        return {"train.json": json.dumps(row("train-850-0-0", directory=57)), **PHOTOS}

    def test_training_photos_lie_in_numbered_folders(self, records):
        assert records[0].images[1].path == "images/train/57/train-850-0-img1.png"


class TestListForm(DatasetContract):
    name = "nlvr2"
    split = "vlt5_valid"
    count = 1

    def files(self):
        entry = {
            "identifier": "dev-850-0-0",
            "img0": "dev-850-0-img0",
            "img1": "dev-850-0-img1",
            "label": 1,
            "sent": "...",
            "uid": "nlvr2_dev_0",
        }
        return {"nlvr/valid.json": json.dumps([entry]), **PHOTOS}

    def test_labels_are_numbers_there(self, records):
        assert (records[0].id, records[0].label, records[0].group_id) == ("nlvr2_dev_0", True, "dev-850-0")


def test_an_odd_identifier_is_named(tmp_path):
    tree = {"dev.json": json.dumps(row("dev-850")), **PHOTOS}
    with pytest.raises(MalformedRecordError, match="`identifier` must look like 'dev-850-0-0'"):
        load_dataset("nlvr2", write_tree(tmp_path, tree), "dev")


@pytest.mark.parametrize("split", ["dev", "balanced_dev"])
def test_the_real_annotations_parse_to_the_stated_counts(realdata, split):
    records = load_dataset("nlvr2", realdata / "lil-lab+nlvr", split, require_media=False)
    assert all(isinstance(record.label, bool) for record in records)
    assert len(records) == 6_982 if split == "dev" else 0 < len(records) < 6_982
