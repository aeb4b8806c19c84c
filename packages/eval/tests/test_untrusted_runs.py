"""The page of a run of somebody else shows the files of its folder, and no other file of this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from weft.eval.errors import FormatError
from weft.eval.report import inspect_html, tables_in

HEAD = {"task": "vqa", "metric": "vqa", "best": 100.0, "rows": 1}
ROW = {
    "id": "1",
    "prediction": "a",
    "references": ["b"],
    "score": 0.0,
    "question": "what?",
    "groups": {},
    "pictures": [],
}


def run_with(folder: Path, row: object, head: object = HEAD) -> Path:
    run = folder / "run"
    (run / "predictions").mkdir(parents=True)
    lines = [json.dumps(head), json.dumps(row)]
    (run / "predictions" / "vqa.table.jsonl").write_text("\n".join(lines) + "\n")
    return run


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "home" / "id_rsa"
    file.parent.mkdir()
    file.write_bytes(b"geheim")
    return file


@pytest.mark.parametrize("how", ["absolute", "relative", "link", "linked folder"])
def test_pictures_outside_of_a_run_are_refused(tmp_path: Path, secret: Path, how: str) -> None:
    run = tmp_path / "run"
    names = {
        "absolute": str(secret),
        "relative": os.path.relpath(secret, run / "predictions"),
        "link": "cat.jpg",
        "linked folder": "pictures/id_rsa",
    }
    run_with(tmp_path, {**ROW, "pictures": [names[how]]})
    if how == "link":
        (run / "predictions" / "cat.jpg").symlink_to(secret)
    if how == "linked folder":
        (run / "predictions" / "pictures").symlink_to(secret.parent)
    with pytest.raises(
        FormatError, match=r"A picture of .* must lie in .*predictions, but leads to .*id_rsa"
    ):
        inspect_html(tables_in(run))


@pytest.mark.parametrize("name", ["\ud800.jpg", "a\0.jpg", "x" * 5000])
def test_pictures_whose_names_no_system_knows_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        FormatError, match=r"A picture of .* must lie in .* but leads to|no picture|does not exist"
    ):
        inspect_html(tables_in(run_with(tmp_path, {**ROW, "pictures": [name]})))


def test_pictures_of_a_run_are_shown(tmp_path: Path) -> None:
    run = run_with(tmp_path, {**ROW, "pictures": ["pictures/1.jpg"]})
    (run / "predictions" / "pictures").mkdir()
    (run / "predictions" / "pictures" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    assert "base64,/9j/" in inspect_html(tables_in(run))


def test_a_table_that_is_a_link_out_of_the_run_is_refused(tmp_path: Path, secret: Path) -> None:
    run = run_with(tmp_path, ROW)
    (run / "predictions" / "vqa.table.jsonl").rename(secret)
    (run / "predictions" / "vqa.table.jsonl").symlink_to(secret)
    with pytest.raises(FormatError, match="A prediction table must lie in"):
        tables_in(run)


@pytest.mark.parametrize(
    ("row", "head"),
    [
        ([], HEAD),
        ("x", HEAD),
        ({**ROW, "more": 1}, HEAD),
        ({**ROW, "references": []}, HEAD),
        ({**ROW, "references": [3]}, HEAD),
        ({**ROW, "groups": {"a": 3}}, HEAD),
        ({**ROW, "groups": None}, HEAD),
        ({**ROW, "score": "x"}, HEAD),
        ({**ROW, "pictures": [None]}, HEAD),
        (ROW, {**HEAD, "best": None}),
        (ROW, {**HEAD, "task": 3}),
        (ROW, []),
    ],
)
def test_a_table_that_no_run_writes_is_refused_with_one_message(
    tmp_path: Path, row: object, head: object
) -> None:
    with pytest.raises(FormatError, match="must be a table of predictions, but does not read"):
        tables_in(run_with(tmp_path, row, head))


def test_a_table_nested_too_deep_is_refused(tmp_path: Path) -> None:
    run = run_with(tmp_path, ROW)
    (run / "predictions" / "vqa.table.jsonl").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="does not read"):
        tables_in(run)
