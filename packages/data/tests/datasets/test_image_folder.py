import unicodedata

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


def folders(tmp_path, *paths):
    return write_tree(
        tmp_path / "root", {f"{path}/{k}.png": image_bytes() for path in paths for k in range(2)}
    )


def test_deeper_trees_are_told_and_may_give_their_innermost_folders(tmp_path, caplog):
    root = folders(tmp_path, "train/fruit/apple/fuji", "train/fruit/pear", "train/nut", "test/fruit/pear")
    records = load_dataset("image_folder", root, "train")
    assert {record.class_name for record in records} == {"fruit", "nut"}
    (note,) = records.notes
    assert note == (
        "4 of 6 images lie below the folder of their class, such as those in 'fruit/apple/fuji', whose class is "
        "'fruit'. Pass classes=leaf to take the innermost folder."
    )
    assert note in caplog.text
    leaves = load_dataset("image_folder", root, "train", classes="leaf")
    assert leaves.class_names == ["fuji", "nut", "pear"]
    assert {record.class_name: record.label for record in leaves} == {"fuji": 0, "nut": 1, "pear": 2}
    assert leaves.notes == ()
    assert {r.label for r in load_dataset("image_folder", root, "test", classes="leaf")} == {2}


def test_innermost_folders_of_one_name_are_refused(tmp_path):
    root = folders(tmp_path, "apple/small", "pear/small")
    with pytest.raises(
        InvalidArgumentError, match=r"but 'apple/small' and 'pear/small' have one\. Rename them"
    ):
        load_dataset("image_folder", root, "all", classes="leaf")
    with pytest.raises(
        InvalidArgumentError, match="must be a list of class folders, or 'leaf', but is 'leaves'"
    ):
        load_dataset("image_folder", root, "all", classes="leaves")


@pytest.mark.parametrize(
    "foreign", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git/x", "cat/@eaDir", "cat/.ipynb_checkpoints"]
)
def test_folders_of_other_programs_are_no_classes(foreign, tmp_path):
    root = folders(tmp_path, "train/cat", "train/dog", f"train/{foreign}", f"{foreign}/cat")
    records = load_dataset("image_folder", root, "train")
    assert records.class_names == ["cat", "dog"]
    assert len(records) == 4


def test_names_that_differ_in_composed_accents_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    files = {f"train/{apart}/a.png": image_bytes(), f"train/{composed}/b.png": image_bytes()}
    root = write_tree(tmp_path, {**files, f"test/{apart}/a.png": image_bytes()})
    records = load_dataset("image_folder", root, "train")
    assert records.class_names == [composed]
    assert [record.image.image().size for record in records] == [(12, 8)] * 2
    assert [record.label for record in load_dataset("image_folder", root, "test", classes=["x", apart])] == [
        1
    ]


def test_labels_and_names_are_those_of_all_splits(tmp_path):
    root = folders(tmp_path, "train/cat", "train/dog", "train/fox", "test/cat", "test/fox", "test/wolf")
    test = load_dataset("image_folder", root, "test")
    assert {record.class_name: record.label for record in test} == {"cat": 0, "fox": 2, "wolf": 3}
    assert test.class_names == ["cat", "dog", "fox", "wolf"]
    assert test.notes == ("no image of the split 'train' is of class wolf.",)


@pytest.mark.parametrize(("split", "count"), [("train", 3_068), ("validation", 341), ("test", 372)])
def test_the_real_photos_parse_to_the_stated_counts(realdata, split, count):
    root = realdata / "alexeygrigorev+clothing-dataset-small" / "images_short80.zip"
    records = load_dataset("image_folder", root, split)
    assert (len(records), len(records.class_names)) == (count, 10)
    assert min(records[0].image.image().size) == 80
