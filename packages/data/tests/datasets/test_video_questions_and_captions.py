import csv
import io
import json

import pytest

from weft.data import MalformedRecordError, load_dataset
from weft.data.datasets._video import Subtitles, span_of
from weft.data.errors import InvalidArgumentError
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.sources.opening import open_store
from weft.data.testing import DatasetContract, write_tree

VIDEO = b"not decoded here"


def lines(*rows):
    return "\n".join(map(json.dumps, rows)) + "\n"


def table(*rows):
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


TVQA = {
    "qid": 1,
    "q": "Who comes in?",
    **{f"a{k}": f"name {k}" for k in range(5)},
    "answer_idx": 2,
    "ts": "10.2-14.1",
    "vid_name": "show_s01e01_clip_03",
    "show_name": "Show",
}
SPEECH = {
    "vid_name": "show_s01e01_clip_03",
    "sub": [{"text": " A : hi", "start": 9.0, "end": 10.5}, {"text": "bye", "start": 20, "end": 21}],
}


class TestTVQA(DatasetContract):
    name = "tvqa"
    split = "val"
    count = 2

    def files(self):
        hidden = {key: value for key, value in TVQA.items() if key != "answer_idx"}
        return {
            "ann/tvqa/tvqa_val.jsonl": lines(TVQA, {**hidden, "qid": 2, "ts": "NaN-NaN"}),
            "ann/tv_subtitles.jsonl": lines(SPEECH),
            "videos/show_s01e01_clip_03.mp4": VIDEO,
        }

    def test_span_and_subtitles_belong_to_the_question(self, records, tmp_path):
        assert (records[0].video.start, records[0].video.end) == (10.2, 14.1)
        assert (records[0].subtitles, records[0].answer) == ("A : hi", 2)
        assert (records[1].video.start, records[1].subtitles, records[1].answer) == (None, "A : hi bye", None)
        assert self.load(tmp_path / "root", subtitles=False)[0].subtitles == ""

    def test_the_speech_of_the_whole_clip_and_the_time_as_written_can_be_had(self, records, tmp_path):
        whole = self.load(tmp_path / "root", subtitles="clip")
        assert [record.subtitles for record in whole] == ["A : hi bye"] * 2
        assert [record.extra["ts"] for record in records] == ["10.2-14.1", "NaN-NaN"]
        with pytest.raises(
            InvalidArgumentError, match="`subtitles` must be 'span', 'clip' or False, but is 'clips'"
        ):
            self.load(tmp_path / "root", subtitles="clips")


class TestHow2QA(DatasetContract):
    name = "how2qa"
    split = "val"
    count = 3

    def files(self):
        rows = [["v1", "[7.2:18.0]", "10", "12", "16", "how many knives?", "1"]] * 3
        return {"how2QA/how2QA_val_release.csv": table(*rows), "videos/v1.webm": VIDEO}

    def test_the_right_option_is_shuffled_with_a_seed(self, records, tmp_path):
        for record in records:
            assert record.options[record.answer] == "1"
            assert sorted(record.options) == ["1", "10", "12", "16"]
        again = self.load(tmp_path / "root")
        assert [record.options for record in again] == [record.options for record in records]
        assert (records[0].video.start, records[0].video.end) == (7.2, 18.0)


class TestHow2QAValueForm(DatasetContract):
    name = "how2qa"
    split = "train"
    count = 1

    def files(self):
        row = {"vid_name": "25848", "ts": "36.58-58.52", "qid": 30351, "q": "?", "answer_idx": 2}
        row.update({f"a{k}": str(k) for k in range(4)})
        return {"video/ann/how2qa/how2qa_train_release.jsonl": lines(row), "how2_videos/25848.mp4": VIDEO}

    def test_options_keep_their_order(self, records):
        assert (records[0].options, records[0].answer) == (("0", "1", "2", "3"), 2)


class TestHow2R(DatasetContract):
    name = "how2r"
    split = "val"
    count = 1

    def files(self):
        return {
            "how2R/how2R_val_release.csv": table(["z0r8", "[180:240]", "[180.0:187.07]", "A woman, smiling"]),
            "videos/z0r8.mp4": VIDEO,
        }

    def test_the_moment_is_the_media_and_the_clip_is_kept(self, records):
        assert (records[0].media.start, records[0].media.end) == (180.0, 187.07)
        assert records[0].extra["clip"] == (180.0, 240.0)


class TestTVC(DatasetContract):
    name = "tvc"
    split = "val"
    count = 2

    def files(self):
        descriptions = [
            {"desc": f"text {k}", "type": "v", "from_retrieval": False, "desc_id": k} for k in range(4)
        ]
        row = {
            "vid_name": "clip",
            "duration": 94.0,
            "ts": [5.8, 8.2],
            "clip_id": 86618,
            "descs": descriptions,
        }
        hidden = {**row, "clip_id": 3}
        del hidden["descs"]
        return {"tvc_val_release.jsonl": lines(row, hidden), "videos/clip.mp4": VIDEO}

    def test_descriptions_may_be_hidden(self, records):
        assert [len(record.captions) for record in records] == [4, 0]
        assert records[0].extra["types"] == ("v",) * 4


class TestTVR(DatasetContract):
    name = "tvr"
    split = "val"
    count = 1

    def files(self):
        row = {
            "vid_name": "clip",
            "duration": 61.4,
            "ts": [16.48, 33.87],
            "desc": "A.",
            "type": "v",
            "desc_id": 9,
        }
        return {"data/tvr_val_release.jsonl": lines(row), "videos/clip.mp4": VIDEO}

    def test_the_type_says_what_it_needs(self, records):
        assert (records[0].id, records[0].extra["type"]) == ("9", "v")


class TestYC2C(DatasetContract):
    name = "yc2c"
    split = "val"
    count = 1

    def files(self):
        row = {
            "clip_id": "x_0",
            "vid_id": "x",
            "duration": 9.0,
            "ts": [1.0, 5.0],
            "descs": [{"desc": "stir"}],
        }
        return {"ann/yc2c/yc2c_val_release.jsonl": lines(row), "videos/x.mkv": VIDEO}

    def test_the_step_is_captioned(self, records):
        assert (records[0].captions, records[0].media.end) == (("stir",), 5.0)


class TestYouCook2OriginalForm(DatasetContract):
    name = "yc2c"
    split = "train"
    count = 2

    def files(self):
        steps = [{"id": k, "segment": [10 * k, 10 * k + 5], "sentence": f"step {k}"} for k in range(2)]
        entry = {"subset": "training", "recipe_type": "226", "annotations": steps, "duration": 99.5}
        database = {"database": {"abc": entry, "xyz": {**entry, "subset": "validation"}}}
        return {"youcookii_annotations_trainval.json": json.dumps(database), "videos/abc.mp4": VIDEO}

    def test_steps_of_the_split_are_taken(self, records):
        assert [record.id for record in records] == ["abc_0", "abc_1"]
        assert records[1].extra["recipe_type"] == "226"


@pytest.mark.parametrize(
    ("name", "split", "path", "content", "message"),
    [
        ("how2qa", "val", "how2QA_val_release.csv", table(["v", "[0:1]", "a"]), "must have 7 columns"),
        ("how2r", "val", "how2R_val_release.csv", table(["v", "[0:1]"]), "must have 4 columns"),
        ("tvqa", "val", "tvqa_val.jsonl", lines({**TVQA, "ts": "soon"}), "`ts` must be a span in seconds"),
    ],
)
def test_rows_that_break_the_format_are_named(tmp_path, name, split, path, content, message):
    with pytest.raises(MalformedRecordError, match=message):
        load_dataset(name, write_tree(tmp_path, {path: content}), split, require_media=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("10.2-14.1", (10.2, 14.1)), ("[1:2.5]", (1, 2.5)), ([3, 4], (3, 4)), ("NaN-NaN", (None, None))],
)
def test_spans_are_read_in_every_official_form(value, expected):
    assert span_of(Row({"ts": value}, "f", 1), "ts") == expected


def test_without_a_subtitle_file_texts_are_empty(tmp_path):
    assert Subtitles(Source("x", open_store(tmp_path)), "none.jsonl").between("v", 0, 1) == ""


@pytest.mark.parametrize(
    ("name", "folder", "split", "options", "count"),
    [
        ("how2qa", "ych133+How2R-and-How2QA", "val", {}, 2_852),
        ("how2qa", "ych133+How2R-and-How2QA", "test_public", {}, 2_937),
        ("how2r", "ych133+How2R-and-How2QA", "val", {}, None),
        ("tvr", "jayleicn+TVRetrieval", "val", {}, 10_895),
        ("tvc", "jayleicn+TVCaption", "test_public", {}, None),
        (
            "tvc",
            "jayleicn+TVCaption",
            "val",
            {"file": "standalone_eval/sample_val_predictions.jsonl"},
            10_841,
        ),
    ],
)
def test_the_real_files_parse_to_the_stated_counts(realdata, name, folder, split, options, count):
    records = load_dataset(name, realdata / folder, split, require_media=False, **options)
    assert len(records) == count if count else len(records) > 1_000
    if name == "how2qa":
        last = sum(record.answer == 3 for record in records) / len(records)
        assert 0.21 < last < 0.29
