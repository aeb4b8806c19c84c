import json
from typing import ClassVar

import pytest

from weft.data import MalformedRecordError, UnknownNameError, load_dataset
from weft.data.testing import DatasetContract, write_tree


def row(number, video, text, times=((1, 1), (1, 2))):
    return {
        "annotation_id": number,
        "video": video,
        "description": text,
        "times": [list(pair) for pair in times],
        "num_segments": 6,
        "dl_link": "u",
    }


ROWS = [row(1, "a.mov", "a cat"), row(2, "b.3gp", "a dog"), row(3, "a.mov", "it jumps")]
VIDEOS = {"videos/a.mov": b"v", "videos/b.3gp": b"v"}
FILES = {"data/val_data.json": json.dumps(ROWS), **VIDEOS}


class TestParagraphs(DatasetContract):
    name = "didemo"
    split = "val"
    count = 2

    def files(self):
        return FILES

    def test_descriptions_of_a_video_are_joined_in_order(self, records, tmp_path):
        assert [record.text for record in records] == ["a cat it jumps", "a dog"]
        captions = self.load(tmp_path / "root", task="caption")
        assert captions[0].captions == ("a cat", "it jumps")


class TestDescriptions(DatasetContract):
    name = "didemo"
    split = "val"
    count = 3
    options: ClassVar = {"unit": "description"}

    def files(self):
        return FILES

    def test_annotated_segments_are_kept(self, records):
        assert records[0].extra == {"times": [[1, 1], [1, 2]], "num_segments": 6}


class TestLines(DatasetContract):
    name = "didemo"
    split = "train"
    count = 1

    def files(self):
        return {
            "didemo_train.jsonl": json.dumps({"clip_name": "x", "caption": "all of it"}),
            "videos/x.mp4": b"v",
        }

    def test_a_line_is_a_paragraph(self, records):
        assert records[0].text == "all of it"


def test_an_id_list_limits_the_videos(tmp_path):
    root = write_tree(tmp_path, {**FILES, "misc/datasets/didemo/val_list.txt": "b.3gp\n"})
    assert [record.media_id for record in load_dataset("didemo", root, "val")] == ["b.3gp"]


def test_unknown_units_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="unit of didemo: 'sentence'"):
        load_dataset("didemo", tmp_path, "val", unit="sentence")


def test_segments_that_are_no_pairs_are_named(tmp_path):
    bad = {**row(1, "a.mov", "x"), "times": [[1]]}
    root = write_tree(tmp_path, {"val_data.json": json.dumps([bad]), **VIDEOS})
    with pytest.raises(MalformedRecordError, match="`times` must be pairs"):
        load_dataset("didemo", root, "val", unit="description")


@pytest.mark.parametrize(("split", "descriptions", "videos"), [("val", 4_180, 1_094), ("test", 4_021, 1_037)])
def test_the_real_annotations_parse_to_the_stated_counts(realdata, split, descriptions, videos):
    root = realdata / "LisaAnne+LocalizingMoments"
    assert len(load_dataset("didemo", root, split, unit="description", require_media=False)) == descriptions
    assert len(load_dataset("didemo", root, split, require_media=False)) == videos


@pytest.mark.parametrize(("split", "count"), [("train", 8_392), ("val", 1_065), ("test", 1_004)])
def test_the_real_id_lists_have_the_stated_counts(realdata, split, count):
    path = realdata / "albanie+collaborative-experts" / "misc/datasets/didemo" / f"{split}_list.txt"
    assert len(set(path.read_text().split())) == count
