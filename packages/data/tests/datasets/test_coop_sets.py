import json

import pytest

from weft.data import MalformedRecordError, MissingFileError, dataset_spec, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree

ROWS = {
    "train": [["b/1.jpg", 1, "bird"], ["a/1.jpg", 0, "ant"]],
    "val": [["a/2.jpg", 0, "ant"]],
    "test": [["a/3.jpg", 0, "ant"]],
}
# Name to its split file and the folders that its paths may start from.
SETS = {
    "caltech101": ("Caltech101", ("101_ObjectCategories", "caltech-101/101_ObjectCategories", "")),
    "oxford_pets": ("OxfordPets", ("images", "")),
    "stanford_cars": ("StanfordCars", ("", "images")),
    "flowers102": ("OxfordFlowers", ("jpg", "images", "")),
    "food101": ("Food101", ("images", "")),
    "sun397": ("SUN397", ("SUN397", "")),
    "dtd": ("DescribableTextures", ("images", "")),
    "eurosat": ("EuroSAT", ("2750", "")),
    "ucf101": ("UCF101", ("UCF-101-midframes", "")),
}


def layout(name, folder):
    prefix = f"{folder}/" if folder else ""
    images = {f"{prefix}{path}": image_bytes(kind="JPEG") for rows in ROWS.values() for path, _, _ in rows}
    return {f"split_zhou_{SETS[name][0]}.json": json.dumps(ROWS), **images}


class CoopContract(DatasetContract):
    count = 2

    def files(self):
        return layout(self.name, SETS[self.name][1][0])

    def test_rows_keep_their_order_and_names(self, records):
        assert [(record.label, record.class_name) for record in records] == [(1, "bird"), (0, "ant")]


class TestCaltech101(CoopContract):
    name = "caltech101"


class TestOxfordPets(CoopContract):
    name = "oxford_pets"


class TestStanfordCars(CoopContract):
    name = "stanford_cars"


class TestFlowers102(CoopContract):
    name = "flowers102"


class TestFood101(CoopContract):
    name = "food101"


class TestSUN397(CoopContract):
    name = "sun397"


class TestDTD(CoopContract):
    name = "dtd"


class TestEuroSAT(CoopContract):
    name = "eurosat"


class TestUCF101(CoopContract):
    name = "ucf101"


@pytest.mark.parametrize("name", SETS)
def test_every_customary_layout_is_accepted(tmp_path, name):
    for number, folder in enumerate(SETS[name][1]):
        for base in dataset_spec(name).bases:
            files = layout(name, folder)
            root = tmp_path / f"{number}-{base or 'root'}"
            write_tree(root, {f"{base}/{path}" if base else path: data for path, data in files.items()})
            assert load_dataset(name, root, "test")[0].image.exists()


def test_an_absent_split_file_says_that_hub_splits_differ(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"split_zhou_EuroSAT.json is linked.*splits of hub copies differ"
    ):
        load_dataset("eurosat", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a.jpg", -1, "ant"], r"train\[1\]: the label must not be negative"),
        (["a.jpg", 1], r"train\[1\]: must have at least 3 columns"),
        ({"impath": "a.jpg"}, r"train\[1\]: must be a list"),
    ],
)
def test_malformed_rows_are_named(tmp_path, row, message):
    files = layout("dtd", "images")
    files["split_zhou_DescribableTextures.json"] = json.dumps({"train": [ROWS["train"][0], row]})
    with pytest.raises(MalformedRecordError, match=message):
        load_dataset("dtd", write_tree(tmp_path, files))


class TestFGVCAircraft(DatasetContract):
    name = "fgvc_aircraft"
    count = 2

    def files(self):
        return {
            "variants.txt": "707-320\nA300 B4\n",
            "images_variant_train.txt": "0056978 A300 B4\n0034309 707-320\n",
            "images/0056978.jpg": image_bytes(),
            "images/0034309.jpg": image_bytes(),
        }

    def test_class_names_may_hold_spaces(self, records):
        assert [(record.label, record.class_name) for record in records] == [(1, "A300 B4"), (0, "707-320")]

    def test_an_unknown_class_is_named(self, tmp_path):
        files = {**self.files(), "images_variant_train.txt": "0056978 A380\n"}
        with pytest.raises(MalformedRecordError, match=r"must be a line of variants.txt, but is 'A380'"):
            self.load(write_tree(tmp_path, files))
