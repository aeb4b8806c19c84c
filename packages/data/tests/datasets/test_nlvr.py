import json

import pytest

from weft.data import InvalidArgumentError, MalformedRecordError, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree, zip_bytes

ROWS = [
    {
        "sentence": "One box is empty.",
        "label": "true",
        "identifier": "7-0",
        "directory": "2",
        "structured_rep": [[]],
    },
    {"sentence": "Two boxes are red.", "label": "false", "identifier": "7-1", "directory": "2"},
    {"sentence": "A tower.", "label": "true", "identifier": "8-0", "directory": "3"},
]


def images(prefix):
    return {
        f"{prefix}{row['directory']}/dev-{row['identifier']}-{k}.png": image_bytes((40 * k, 0, 0))
        for row in ROWS
        for k in range(6)
    }


LINES = "\n".join(map(json.dumps, ROWS)) + "\n"


class TestNLVR(DatasetContract):
    name = "nlvr"
    split = "dev"
    count = 3

    def files(self):
        return {"nlvr/dev/dev.json": LINES, **images("nlvr/dev/images/")}

    def test_sentences_of_one_presentation_share_a_group(self, records):
        assert [record.group_id for record in records] == ["dev-7", "dev-7", "dev-8"]
        assert [record.label for record in records] == [True, False, True]
        assert records[0].extra["structured_rep"] == [[]]
        assert records[0].extra["directory"] == "2"

    def test_permutations_choose_the_image(self, tmp_path):
        root = write_tree(tmp_path / "p", self.files())
        third = self.load(root, permutation=3)
        assert third[0].images[0].path.endswith("2/dev-7-0-3.png")
        every = self.load(root, permutation="all", structured=False)
        assert len(every) == 18
        assert len({record.group_id for record in every}) == 2
        assert "structured_rep" not in every[0].extra


@pytest.mark.parametrize("permutation", [6, -1, "some"])
def test_a_permutation_outside_the_six_is_refused(tmp_path, permutation):
    with pytest.raises(InvalidArgumentError, match="`permutation` must be 0 to 5 or 'all'"):
        load_dataset("nlvr", tmp_path, "dev", permutation=permutation)


def test_images_may_stay_in_their_zip(tmp_path):
    root = write_tree(tmp_path, {"dev/dev.json": LINES, "dev/images.zip": zip_bytes(images("dev/images/"))})
    assert load_dataset("nlvr", root, "dev")[0].images[0].image().size == (12, 8)


def test_an_odd_identifier_is_named(tmp_path):
    rows = [ROWS[0], {**ROWS[1], "identifier": "seven"}]
    tree = {"dev/dev.json": "\n".join(map(json.dumps, rows)), **images("dev/images/")}
    with pytest.raises(
        MalformedRecordError, match="row 2: `identifier` must look like '1572-0', but is 'seven'"
    ):
        load_dataset("nlvr", write_tree(tmp_path, tree), "dev")


@pytest.mark.parametrize(
    ("split", "rows", "true", "groups"), [("dev", 989, 547, 266), ("test", 990, 556, 267)]
)
def test_the_real_files_parse_to_the_official_counts(realdata, split, rows, true, groups):
    records = load_dataset("nlvr", realdata / "lil-lab+nlvr", split)
    assert (len(records), sum(record.label for record in records)) == (rows, true)
    assert abs(len({record.group_id for record in records}) - groups) <= 1
    every = load_dataset("nlvr", realdata / "lil-lab+nlvr", split, permutation="all", structured=False)
    assert all(record.images[0].exists() for record in every)
    assert records[0].images[0].image().size == (400, 100)
