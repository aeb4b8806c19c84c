r"""Texts of others: only `\n` ends a line, and what does not read is told with its file and row."""

import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from weft.data import load_dataset
from weft.data.errors import MalformedRecordError
from weft.data.records.rows import Row
from weft.data.records.source import StoredFile
from weft.data.sources.folders import FolderStore
from weft.data.sources.texts import lines_of
from weft.data.testing import image_bytes, write_tree

SEPARATORS = ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"]


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_only_a_newline_ends_a_line(separator):
    assert lines_of(f"a{separator}b\nc\r\n\nd") == [f"a{separator}b", "c", "", "d"]
    assert lines_of("") == []


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_question_may_hold_any_separator(separator, ending, tmp_path):
    question = f"what{separator}is it"
    row = {"image": "a.png", "question": question}
    delimiter = "\t" if ending == "tsv" else ","
    text = (
        json.dumps(row, ensure_ascii=False)
        if ending == "jsonl"
        else f"{delimiter.join(row)}\na.png{delimiter}{question}"
    )
    (tmp_path / f"train.{ending}").write_text(text + "\n", encoding="utf-8", newline="\n")
    (record,) = load_dataset("table", tmp_path, "train")
    assert record.question == question


def test_a_list_of_names_may_hold_any_separator(tmp_path):
    write_tree(tmp_path, {"names.txt": "n1 a\u2028b\r\nn2 c\n"})
    assert StoredFile(FolderStore(str(tmp_path)), "names.txt").lines() == ["n1 a\u2028b", "n2 c"]


def test_a_cell_of_csv_may_be_long(tmp_path):
    long = "a " * 100_000
    write_tree(tmp_path, {"train.csv": f'image,question\na.png,"{long}"\n'})
    (record,) = load_dataset("table", tmp_path, "train")
    assert record.question == long


def table(tmp_path: Path, **files: str) -> Any:
    write_tree(tmp_path, {f"train.{ending}": text for ending, text in files.items()})
    return lambda **options: load_dataset("table", tmp_path, "train", **options)


HALF = "\ud83d"
START = '{"image": "a.png", "question": '


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"image": "a.png", "question": HALF}), "`question` must be text that UTF-8 can write"),
        (
            json.dumps({"image": "a.png", "question": "a", "answers": ["b", HALF]}),
            "`answers` must be text that",
        ),
        (
            json.dumps({"image": "a.png", "question": "a", "id": HALF}),
            "`id` must be text that UTF-8 can write",
        ),
        (
            json.dumps({"image": "a.png", "question": "a", "x": [{"y": HALF}]}),
            "must hold text that UTF-8 can",
        ),
        (START + f'"a", "id": {"9" * 5000}' + "}", "a whole number in it has more than 4,300"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"image": "a.png", "question"', "Expecting ':' delimiter at column"),
    ],
    ids=["question", "answer", "id", "another column", "long number", "deep", "cut short"],
)
def test_a_line_that_cannot_be_used_is_named_and_may_be_left_out(text, message, tmp_path):
    load = table(tmp_path, jsonl=f'{{"image": "a.png", "question": "?"}}\n{text}\n')
    with pytest.raises(MalformedRecordError, match=rf"train\.jsonl, row 2: .*{message}"):
        load()
    kept = load(on_error="skip")
    assert (len(kept), len(kept.skipped)) == (1, 1)


def test_a_whole_pair_of_surrogates_is_text(tmp_path):
    load = table(tmp_path, jsonl='{"image": "a.png", "question": "\\ud83d\\ude00"}\n')
    assert load()[0].question == "\U0001f600"


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_cell_may_be_longer_than_128_kilobytes(ending, tmp_path):
    between, long = {"csv": ",", "tsv": "\t"}[ending], "x" * 200_000
    load = table(tmp_path, **{ending: f"image{between}question\na.png{between}{long}\n"})
    assert load(require_media=False)[0].question == long


def test_a_row_with_more_cells_than_the_header_is_named(tmp_path):
    load = table(tmp_path, csv="image,question\na.png,what, then\n")
    with pytest.raises(
        MalformedRecordError, match=r"row 2: must have as many cells as the header, but has 1 more"
    ):
        load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        (f"[{'9' * 5000}]", "more than 4,300 digits"),
        ("{", "line 1 does not parse: .* at column 2"),
    ],
    ids=["deep", "long number", "cut short"],
)
def test_an_annotation_file_that_does_not_read_is_named(text, message, tmp_path):
    write_tree(tmp_path, {"a.json": text})
    with pytest.raises(MalformedRecordError, match=rf"a\.json must be JSON, but .*{message}"):
        StoredFile(FolderStore(str(tmp_path)), "a.json").json()


@pytest.mark.parametrize("value", ["9" * 5000, "9" * 19, 10**30, -(10**19), "--5", "²", "5.0"])
def test_a_number_that_is_no_integer_of_64_bits_is_named(value):
    with pytest.raises(MalformedRecordError, match="`label` must be an integer"):
        Row({"label": value}, "a.csv", 1).integer("label")


@pytest.mark.parametrize(("value", "number"), [(" 7 ", 7), ("-3", -3), (2**62, 2**62), (str(2**62), 2**62)])
def test_integers_are_read_from_digits(value, number):
    assert Row({"label": value}, "a.csv", 1).integer("label") == number


def test_a_number_too_large_for_a_float_is_named():
    row = Row({"end": 10**400, "span": [0, 10**400]}, "a.json", 3)
    with pytest.raises(MalformedRecordError, match="row 3: `end` must be a number of at most 64 bits"):
        row.number_of("end")
    with pytest.raises(MalformedRecordError, match="row 3: `span` must be a number of at most 64 bits"):
        row.span("span")


def test_a_parquet_file_whose_text_is_no_utf_8_is_named(tmp_path):
    column = arrow.array([b"\xff\xfe"], arrow.binary()).view(arrow.string())
    parquet.write_table(arrow.table({"image": ["a.png"], "question": column}), tmp_path / "train.parquet")
    with pytest.raises(MalformedRecordError, match=r"train\.parquet must be a Parquet file"):
        load_dataset("table", tmp_path, "train")


def test_csv_that_does_not_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("weft.data.sources.texts._LARGEST_FIELD", 3)
    load = table(tmp_path, csv="image,question\na.png,what\n")
    with pytest.raises(MalformedRecordError, match=r"train\.csv must be CSV, but is not: field larger than"):
        load()


PICTURE = image_bytes(kind="JPEG")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"001.txt": "café".encode("latin-1")}, r"'001\.txt' must be UTF-8 text"),
        ({"001.txt": "a", "001.json": "[1]"}, r"'001\.json' must be a JSON object, but is list"),
        ({"001.txt": "a", "001.json": "{"}, r"'001\.json' must be JSON, but line 1 does not parse"),
        ({"001.txt": "a", "001.json": b"\xff"}, r"'001\.json' must be UTF-8 text"),
    ],
    ids=["latin-1", "list", "cut short", "binary"],
)
def test_a_sample_of_a_tar_that_does_not_read_is_named_and_may_be_left_out(bad, message, tmp_path):
    from io import BytesIO
    from tarfile import TarInfo
    from tarfile import open as open_tar

    with open_tar(tmp_path / "train-0.tar", "w") as archive:
        for name, content in {"000.jpg": PICTURE, "000.txt": "a cup", "001.jpg": PICTURE, **bad}.items():
            data = content.encode() if isinstance(content, str) else content
            member = TarInfo(name)
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    options: Any = {"columns": {"captions": "txt"}}
    with pytest.raises(MalformedRecordError, match=rf"train-0\.tar, row 001: {message}"):
        load_dataset("webdataset", tmp_path, "train", **options)
    kept = load_dataset("webdataset", tmp_path, "train", on_error="skip", **options)
    assert [record.captions for record in kept] == [("a cup",)]
