import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from weft.data import (
    Caption,
    Classify,
    ImageQA,
    MediaRef,
    PairBool,
    Record,
    Retrieval,
    VideoMC,
    VideoQA,
    load_dataset,
)
from weft.data.catalog import splits_of
from weft.data.checks import MAX_NAMED, check_dataset, describe_dataset, describe_datasets
from weft.data.errors import InvalidArgumentError, UnknownNameError
from weft.data.records.contact_sheet import contact_sheet, load_font, wrap_to_width
from weft.data.sources.store import BytesStore
from weft.data.testing import image_bytes, write_tree

QUESTIONS = [["what?", "circle", 0], ["red?", "yes", 1]]


def tree(**changes):
    files = {f"{s}/images/{k}.png": image_bytes() for s in ("train", "test") for k in range(2)}
    files.update({f"{s}/questions.json": json.dumps(QUESTIONS) for s in ("train", "test")})
    files.update(changes)
    return {name: content for name, content in files.items() if content is not None}


def test_every_data_set_is_described_with_licence_and_remedy():
    for facts in describe_datasets():
        assert facts.licence
        assert facts.summary
    facts = describe_dataset("nlvr")
    assert facts.options["permutation"] == 0
    assert "SPLIT.json" in facts.how_to_get
    assert describe_dataset("gqa").hub == ("lmms-lab/GQA@(pin a commit)",)


def test_a_count_that_differs_from_the_official_one_is_a_problem(tmp_path):
    report = check_dataset("easy_vqa", write_tree(tmp_path, tree()))
    assert not report.ok
    assert [split.found for split in report.splits] == [2, 2]
    assert "train must hold" in report.splits[0].problems[0]
    assert report.splits[0].media_checked == 2


@pytest.mark.parametrize("media", ["sample", "all"])
def test_absent_and_damaged_files_are_named(tmp_path, media):
    root = write_tree(tmp_path, tree(**{"train/images/1.png": image_bytes()[:40], "test/images/1.png": None}))
    report = check_dataset("easy_vqa", root, media=media)
    assert any("1.png must be a whole image" in problem for problem in report.splits[0].problems)
    assert any("absent: " in problem and "1.png" in problem for problem in report.splits[1].problems)
    assert check_dataset("easy_vqa", root, media="none").splits[0].media_checked == 0


def test_missing_files_and_malformed_rows_are_listed_not_raised(tmp_path):
    many = json.dumps([*QUESTIONS, *[["x"]] * (MAX_NAMED + 5)])
    root = write_tree(tmp_path, tree(**{"train/questions.json": None, "test/questions.json": many}))
    train, test = check_dataset("easy_vqa", root).splits
    assert train.found is None
    assert "questions.json" in train.problems[0]
    assert test.found == 2
    assert test.problems[MAX_NAMED] == "... and 5 more malformed rows"


def test_a_whole_folder_passes(tmp_path):
    tree = {f"train/{name}/{k}.png": image_bytes() for name in ("a", "b") for k in range(3)}
    report = check_dataset("image_folder", write_tree(tmp_path, tree))
    assert report.ok
    assert report.splits[0].media_checked == 6


def test_a_misspelt_split_is_still_an_error(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'train'"):
        check_dataset("easy_vqa", tmp_path, ["trian"])


IMAGE = MediaRef.from_bytes(image_bytes())
VIDEO = MediaRef("v.mp4", BytesStore({}), "video")
RECORDS = [
    ImageQA(id="1", image=IMAGE, image_id="i", question="What colour?", answers=("red", "red")),
    PairBool(id="2", images=(IMAGE, IMAGE), group_id="g", sentence="Both are red.", label=True),
    PairBool(id="3", images=(IMAGE,), group_id="g", sentence="One is red."),
    Caption(id="4", media=IMAGE, media_id="i", captions=("a red field", "red")),
    Retrieval(id="5", media=IMAGE, media_id="i", text="red", text_id="t"),
    Classify(id="6", image=IMAGE, label=3, class_name="field"),
    VideoMC(id="7", video=VIDEO, media_id="v", question="Who?", options=("he", "she"), answer=1),
    VideoQA(id="8", video=VIDEO, media_id="v", question="Why?"),
]


def test_a_sheet_shows_every_kind_of_record():
    sheet = contact_sheet(RECORDS, columns=3, tile=60)
    assert sheet.width == 3 * 68 + 8
    assert sheet.getpixel((20, 60)) == (200, 30, 30)
    assert [record.summary() for record in RECORDS] == [
        "What colour? -> red",
        "Both are red. -> True",
        "One is red. -> ?",
        "a red field | red",
        "red",
        "3: field",
        "Who? -> he / *she",
        "Why? -> ?",
    ]
    assert Record(id="x").summary() == "x"


def test_a_sheet_shows_four_frames_of_a_video(monkeypatch):
    pytest.importorskip("av")
    records = load_dataset("scenes", split="test", task="motion", size=1, num_scenes=40)
    shown = contact_sheet(records, tile=80)
    first = Image.open(io.BytesIO(records[0].video.read())).convert("RGB").resize((40, 40))
    assert np.abs(np.asarray(shown)[8:48, 8:48].astype(int) - np.asarray(first)).mean() < 12
    monkeypatch.setitem(sys.modules, "av", None)
    assert contact_sheet(records, tile=80).getpixel((70, 70)) == (225, 225, 225)


def test_pictures_that_must_be_there_are_opened_without_asking_first(monkeypatch):
    monkeypatch.setattr(BytesStore, "exists", lambda store, path: pytest.fail("each question is a request"))
    assert contact_sheet([RECORDS[0]], tile=60).getpixel((20, 60)) == (200, 30, 30)


def test_no_text_of_a_sheet_runs_into_the_next_cell_and_answers_stay():
    face = load_font(None)
    text = "match: 'image text match: One green thing beside averyveryverylongwordwithoutanyblank and more' -> 'false'"
    for width, most in ((180, 4), (60, 4), (60, 30), (40, 1)):
        lines = wrap_to_width(text, width, most, face)
        assert len(lines) <= most
        assert max(face.getlength(line) for line in lines) <= width
        assert lines[-1].endswith("e'") or width == 40
    whole = wrap_to_width(text, 60, 30, face)
    assert "".join(whole).replace(" ", "") == text.replace(" ", "")
    assert wrap_to_width("", 60, 4, face) == [""]


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "must hold at least one record"),
        (RECORDS, {"columns": 0}, "must be positive, but are 0"),
        (RECORDS, {"font": "/nowhere.ttf"}, "`font` must be a TrueType font file"),
    ],
)
def test_impossible_sheets_are_refused(records, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        contact_sheet(records, **options)


def test_classes_are_counted_by_label(tmp_path):
    files = {f"train/{name}/{k}.png": image_bytes() for name in ("cat", "dog/small") for k in range(2)}
    root = write_tree(tmp_path, {**files, "test/cat/0.png": image_bytes()})
    train, test = check_dataset("image_folder", root, ["train", "test"]).splits
    assert list(train.classes.items()) == [("cat", 2), ("dog", 2)]
    assert list(test.classes.items()) == [("cat", 1), ("dog", 0)]
    assert train.ok
    assert "Pass classes=leaf" in train.notes[0]
    assert test.notes == ()


def test_names_of_records_with_a_gap_in_their_labels_are_not_guessed(tmp_path):
    row = "image,label,class_name\na.png,{},{}\n"
    root = write_tree(tmp_path, {"a.png": image_bytes(), "test.csv": row.format(1, "fox")})
    records = load_dataset("table", root, "test", record="classify")
    with pytest.raises(InvalidArgumentError, match="has no record with label 0"):
        _ = records.class_names


@pytest.mark.parametrize(
    ("name", "files", "splits", "options"),
    [
        ("image_folder", ["test/cat/1.png", "val/cat/1.png"], ["test", "val"], {}),
        ("image_folder", ["cat/1.png", "dog/1.png"], ["all"], {}),
        ("table", ["dev.jsonl", "test.jsonl", "images/notes.csv"], ["dev", "test"], {"record": "caption"}),
        ("webdataset", ["dev-0.tar", "test/0.tar"], ["dev", "test"], {}),
    ],
)
def test_the_splits_that_users_name_are_those_that_are_there(tmp_path, name, files, splits, options):
    root = write_tree(tmp_path, {file: image_bytes() for file in files})
    assert list(splits_of(name, root, **options)) == splits
    assert [split.split for split in check_dataset(name, root, **options).splits] == splits


def test_a_root_without_splits_is_refused_and_no_split_is_guessed(tmp_path):
    with pytest.raises(InvalidArgumentError, match="`splits` must be named for data set 'table'"):
        check_dataset("table", tmp_path)
    (tmp_path / "one.csv").write_text("image,captions\n")
    assert splits_of("table", tmp_path / "one.csv") == ("one",)
    assert splits_of("table", tmp_path, file="one.csv") == ("one",)
