import pytest

from weft.data import InvalidArgumentError, MissingFileError, UnknownNameError, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree


class TestImageFolder(DatasetContract):
    name = "image_folder"
    count = 3

    def files(self):
        return {
            "train/big_cat/b.jpg": image_bytes(kind="JPEG"),
            "train/big_cat/a.png": image_bytes(),
            "train/dog/c.PNG": image_bytes(),
            "train/dog/notes.txt": "not an image",
            "test/ant/d.png": image_bytes(),
        }

    def test_labels_agree_between_splits(self, records, tmp_path):
        assert [(record.label, record.class_name) for record in records] == [
            (1, "big cat"),
            (1, "big cat"),
            (2, "dog"),
        ]
        assert self.load(tmp_path / "root", split="test")[0].label == 0

    def test_an_unknown_split_lists_the_folders(self, tmp_path):
        with pytest.raises(UnknownNameError, match=r"'tran'. Did you mean 'train'"):
            self.load(write_tree(tmp_path, self.files()), split="tran")


def test_classes_may_be_given_in_order(tmp_path):
    root = write_tree(tmp_path, {"dog/a.png": image_bytes(), "cat/b.png": image_bytes()})
    records = load_dataset("image_folder", root, "all", classes=["dog", "cat"])
    assert {record.class_name: record.label for record in records} == {"dog": 0, "cat": 1}
    with pytest.raises(UnknownNameError, match=r"class folder: 'dog'.*Add it"):
        load_dataset("image_folder", root, "all", classes=["cat"])
    with pytest.raises(InvalidArgumentError, match="must not repeat a class"):
        load_dataset("image_folder", root, "all", classes=["cat", "cat"])


def test_no_image_at_all_is_reported(tmp_path):
    with pytest.raises(MissingFileError, match="How to get them"):
        load_dataset("image_folder", tmp_path, "all")


@pytest.mark.parametrize(("split", "count"), [("train", 3_068), ("validation", 341), ("test", 372)])
def test_the_real_photos_parse_to_the_stated_counts(realdata, split, count):
    root = realdata / "alexeygrigorev+clothing-dataset-small" / "images_short80.zip"
    records = load_dataset("image_folder", root, split)
    assert (len(records), len(records.class_names)) == (count, 10)
    assert min(records[0].image.image().size) == 80
