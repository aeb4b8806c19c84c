import pytest

from weft.data import MalformedRecordError, MissingFileError, load_dataset, restrict_classes
from weft.data.testing import DatasetContract, image_bytes, write_tree

CLASS_NAMES = "n01440764 tench\nn01443537 goldfish\nn01484850 great white shark\n"


def tree(folder, *wnids):
    images = {f"{folder}/{wnid}/{k}.JPEG": image_bytes(kind="JPEG") for wnid in wnids for k in (2, 1)}
    return {"classnames.txt": CLASS_NAMES, **images}


class TestImageNet(DatasetContract):
    name = "imagenet"
    split = "val"
    count = 4

    def files(self):
        return tree("images/val", "n01484850", "n01440764")

    def test_labels_are_positions_among_all_classes(self, records):
        assert [record.label for record in records] == [0, 0, 2, 2]
        assert records[2].class_name == "great white shark"
        assert records[0].id == "n01440764/1.JPEG"


class TestImageNetV2(DatasetContract):
    name = "imagenet_v2"
    split = "test"
    count = 4

    def files(self):
        return tree("imagenetv2-matched-frequency-format-val", "2", "0")

    def test_folders_are_class_numbers(self, records):
        assert [record.class_name for record in records] == ["tench"] * 2 + ["great white shark"] * 2
        assert [record.label for record in records] == [0, 0, 2, 2]


class TestImageNetSketch(DatasetContract):
    name = "imagenet_sketch"
    split = "test"
    count = 2

    def files(self):
        return tree("images", "n01443537")

    def test_labels_are_positions_among_all_classes(self, records):
        assert records[0].label == 1
        assert records[0].domain == "imagenet_sketch"


class TestImageNetA(DatasetContract):
    name = "imagenet_a"
    split = "test"
    count = 4

    def files(self):
        return {**tree("imagenet-a", "n01443537", "n01484850"), "imagenet-a/README.txt": "not a class"}

    def test_labels_count_its_own_classes_and_keep_the_place_among_all(self, records):
        assert [record.label for record in records] == [0, 0, 1, 1]
        assert [record.extra["imagenet_label"] for record in records] == [1, 1, 2, 2]


class TestImageNetR(DatasetContract):
    name = "imagenet_r"
    split = "test"
    count = 2

    def files(self):
        return tree("imagenet-r", "n01440764")


def test_a_shift_to_fewer_classes_masks_the_large_set(tmp_path):
    root = write_tree(tmp_path, {**TestImageNet().files(), **TestImageNetA().files()})
    shifted = load_dataset("imagenet_a", root, "test")
    kept = sorted({record.extra["imagenet_label"] for record in shifted} & {0, 2})
    masked = restrict_classes(load_dataset("imagenet", root, "val"), kept)
    assert {record.label for record in masked} == {0}


def test_a_folder_that_is_no_class_is_named(tmp_path):
    root = write_tree(tmp_path, tree("images/val", "n99999999"))
    with pytest.raises(MalformedRecordError, match=r"folder 'n99999999' must be a class of classnames.txt"):
        load_dataset("imagenet", root, "val")


def test_broken_class_names_are_named(tmp_path):
    root = write_tree(tmp_path, {**tree("images/val", "n01440764"), "classnames.txt": "n01440764\n"})
    with pytest.raises(MalformedRecordError, match="row 1: must be a WordNet id"):
        load_dataset("imagenet", root, "val")


def test_an_empty_folder_of_images_is_reported(tmp_path):
    root = write_tree(tmp_path, {"classnames.txt": CLASS_NAMES})
    (root / "images" / "val").mkdir(parents=True)
    with pytest.raises(MissingFileError, match="must hold the images"):
        load_dataset("imagenet", root, "val")


def test_a_set_of_fewer_classes_says_which_are_not_there(tmp_path):
    root = write_tree(tmp_path, TestImageNetA().files())
    (note,) = load_dataset("imagenet_a", root, "test").notes
    assert note.startswith("labels count the 2 class folders that are there, but the set has 200.")


def test_names_are_those_of_the_data_set_where_a_split_lacks_a_class(tmp_path):
    root = write_tree(tmp_path, TestImageNet().files())
    assert load_dataset("imagenet", root, "val").class_names[0] == "tench"
