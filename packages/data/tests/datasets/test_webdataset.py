import io
import json
import tarfile
from functools import partial
from typing import ClassVar

import pytest

from weft.data import (
    Classify,
    MalformedRecordError,
    MissingFileError,
    PairBool,
    UnknownNameError,
    load_dataset,
)
from weft.data.testing import DatasetContract, image_bytes, write_tree


def tar(samples):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in samples.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


PICTURE = image_bytes(kind="JPEG")
FIRST = {"000.jpg": PICTURE, "000.txt": "a cup\n", "000.json": json.dumps({"source": "web"})}
SECOND = {"001.jpg": PICTURE, "001.txt": "a cat"}


class TestWebDataset(DatasetContract):
    name = "webdataset"
    count = 2
    options: ClassVar = {"columns": {"captions": "txt"}}

    def files(self):
        return {"train-00000.tar": tar(FIRST), "train-00001.tar": tar(SECOND), "val-00000.tar": tar(SECOND)}

    def test_samples_keep_their_metadata(self, records):
        assert [record.captions for record in records] == [("a cup",), ("a cat",)]
        assert records[0].id == "train-00000.tar:000"
        assert records[0].extra["source"] == "web"

    def test_one_tar_may_be_the_root(self, tmp_path):
        root = write_tree(tmp_path, self.files())
        assert len(self.load(root / "val-00000.tar")) == 1

    def test_zip_and_url_give_the_same_records(self, records, tmp_path):
        """A tar inside a zip is not opened; one tar as root is tested above."""
        with pytest.raises(MissingFileError, match="tars"):
            self.load(tmp_path, split="none")


def test_classes_are_numbers_in_cls_files(tmp_path):
    root = write_tree(tmp_path, {"test/0.tar": tar({"a.png": image_bytes(), "a.cls": "7"})})
    records = load_dataset("webdataset", root, "test", record="classify", columns={"label": "cls"})
    assert isinstance(records[0], Classify)
    assert (records[0].label, records[0].class_name) == (7, "7")


def test_other_records_come_from_json(tmp_path):
    sample = {
        "a.png": image_bytes(),
        "a.json": json.dumps({"sentence": "One.", "label": True}),
        "a.mp4": b"v",
    }
    root = write_tree(tmp_path, {"test/0.tar": tar(sample)})
    records = load_dataset("webdataset", root, "test", record="pair_bool")
    assert isinstance(records[0], PairBool)
    assert records[0].label is True
    with pytest.raises(UnknownNameError, match="record type: 'pairbool'"):
        load_dataset("webdataset", root, "test", record="pairbool")


def test_classes_are_named_in_the_order_given(tmp_path):
    root = write_tree(tmp_path, {"test/0.tar": tar({"a.png": image_bytes(), "a.cls": "fox"})})
    load = partial(load_dataset, "webdataset", root, "test", record="classify", columns={"class_name": "cls"})
    records = load(classes=["cat", "fox"])
    assert (records[0].label, records.class_names) == (1, ["cat", "fox"])
    with pytest.raises(
        MalformedRecordError, match="must have the column `label`, where `classes` does not number"
    ):
        load()
