import json
from typing import ClassVar

import pytest

from weft.data import MalformedRecordError, MissingFileError, UnknownNameError, load_dataset
from weft.data.datasets.msrvtt import read_id_list
from weft.data.records.source import Source
from weft.data.sources.opening import open_store
from weft.data.testing import DatasetContract, write_tree

SPLITS = {0: "train", 1: "validate", 2: "test"}
DATA = {
    "videos": [
        {"video_id": f"video{k}", "category": 9, "split": split, "url": "u"} for k, split in SPLITS.items()
    ],
    "sentences": [
        {"video_id": f"video{k}", "sen_id": 20 * k + j, "caption": f"caption {j}"}
        for k in SPLITS
        for j in range(20)
    ],
}
VIDEOS = {f"videos/all/video{k}.mp4": b"v" for k in SPLITS}


class TestFullSplit(DatasetContract):
    name = "msrvtt"
    split = "train"
    count = 20

    def files(self):
        return {"MSRVTT_data.json": json.dumps(DATA), **VIDEOS}

    def test_official_splits_follow_the_field(self, records, tmp_path):
        assert {record.media_id for record in records} == {"video0"}
        assert {record.media_id for record in self.load(tmp_path / "root", split="val")} == {"video1"}
        seven = self.load(tmp_path / "root", split="train_7k", task="caption")
        assert [record.id for record in seven] == ["video0", "video1"]
        assert len(seven[0].captions) == 20

    def test_customary_splits_need_their_list(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"train_list_jsfusion\.txt"):
            self.load(write_tree(tmp_path, self.files()), split="train_9k")


class TestListedSplit(DatasetContract):
    name = "msrvtt"
    split = "train_9k"
    count = 40

    def files(self):
        listed = {"misc/datasets/msrvtt/train_list_jsfusion.txt": "video0\nvideo2\n"}
        return {"MSRVTT_data.json": json.dumps(DATA), **listed, **VIDEOS}

    def test_the_list_decides(self, records):
        assert {record.media_id for record in records} == {"video0", "video2"}


class TestOneThousandA(DatasetContract):
    name = "msrvtt"
    split = "test_1k"
    count = 2

    def files(self):
        table = 'key,vkey,video_id,sentence\nret0,msr1,video1,"a man, talking"\nret1,msr2,video2,a cat\n'
        return {"MSRVTT_JSFUSION_test.csv": table, **VIDEOS}

    def test_each_video_has_one_fixed_caption(self, records, tmp_path):
        assert [record.text for record in records] == ["a man, talking", "a cat"]
        assert self.load(tmp_path / "root", task="caption")[0].captions == ("a man, talking",)

    def test_without_table_or_list_both_are_named(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"(?s)JSFUSION_test\.csv.*msrvtt_test\.jsonl"):
            self.load(write_tree(tmp_path, {"MSRVTT_data.json": json.dumps(DATA)}))


class TestLines(DatasetContract):
    name = "msrvtt"
    split = "train_9k"
    count = 2

    def files(self):
        rows = [{"clip_name": f"video{k}", "caption": "a man talks"} for k in (0, 1)]
        return {"msrvtt_train.jsonl": "\n".join(map(json.dumps, rows)), **VIDEOS}

    def test_every_line_is_a_pair(self, records):
        assert records[1].media.path.endswith("video1.mp4")


class TestQuestions(DatasetContract):
    name = "msrvtt_qa"
    split = "val"
    count = 2

    def files(self):
        row = {"id": 3, "video_id": 1, "category_id": 2, "question": "what is a man doing", "answer": "talk"}
        hidden = {"id": 4, "video_id": 1, "question": "who"}
        return {"val_qa.json": json.dumps([row, hidden]), **VIDEOS}

    def test_the_number_names_the_video(self, records):
        assert (records[0].media_id, records[0].answers, records[0].extra) == (
            "video1",
            ("talk",),
            {"category_id": 2},
        )
        assert records[1].answers == ()


def test_a_video_without_captions_is_named(tmp_path):
    data = {**DATA, "sentences": []}
    with pytest.raises(MalformedRecordError, match="video video0 must have a caption"):
        load_dataset(
            "msrvtt", write_tree(tmp_path, {"MSRVTT_data.json": json.dumps(data), **VIDEOS}), "train"
        )


def test_unknown_tasks_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="task of msrvtt"):
        load_dataset("msrvtt", tmp_path, "train", task="qa")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("train_list_full", 6_513),
        ("val_list_full", 497),
        ("test_list_full", 2_990),
        ("train_list_jsfusion", 9_000),
        ("val_list_jsfusion", 1_000),
        ("test_list_miech", 1_000),
    ],
)
def test_the_real_id_lists_have_the_stated_counts(realdata, name, count):
    source = Source("msrvtt", open_store(realdata / "albanie+collaborative-experts"))
    ids = read_id_list(source, f"{name}.txt")
    assert len(ids) == len(set(ids)) == count


class TestOptionsOfContract(DatasetContract):
    name = "msrvtt"
    split = "val"
    count = 1
    options: ClassVar = {"task": "caption"}

    def files(self):
        return {"annotation/MSR_VTT.json": json.dumps(DATA), **VIDEOS}
