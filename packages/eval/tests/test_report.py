from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from weft.data.errors import CorruptMediaError
from weft.eval.compare import Comparison, Row, significance
from weft.eval.errors import ComparisonError, FormatError, ScoreInputError
from weft.eval.metrics import caption_scores, top1_accuracy
from weft.eval.report import PredictionTable, inspect_html, prediction_table, tables_in, tables_of_run
from weft.eval.report.pairing import paired_rows
from weft.eval.report.predictions import PredictionRow
from weft.eval.tracking import open_run

COLOURS = ["red", "green", "blue"]


class Reference:
    """Stands in for a lazy image of weft.data."""

    def image(self) -> Image.Image:
        return Image.new("RGBA", (400, 300), "red")


def encoded() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def make(folder: Path | None, shift: int = 0, **options: Any) -> PredictionTable:
    ids = [f"q{i}" for i in range(12)]
    gold = {key: COLOURS[i % 3] for i, key in enumerate(ids)}
    said = {key: COLOURS[(i + (shift if i % 2 else 0)) % 3] for i, key in enumerate(ids)}
    groups = {"question_type": {key: f"type {i % 2}" for i, key in enumerate(ids)}}
    report = top1_accuracy(said, gold)
    return prediction_table(
        "vqa",
        said,
        {key: [value, "<other>", value] for key, value in gold.items()},
        report,
        questions={key: f"what colour is <{key}>?" for key in ids},
        groups=groups,
        folder=folder,
        **options,
    )


def test_a_saved_table_reads_back_whole(tmp_path: Path) -> None:
    images = {f"q{i}": [encoded(), Reference(), Image.new("RGB", (5, 5))] for i in range(12)}
    table = make(tmp_path, shift=1, images=images, pictures=4)
    table.save(tmp_path)
    read = tables_in(tmp_path)["vqa"]
    assert read == table
    assert sum(bool(row.pictures) for row in read.rows) == 4
    assert len(list((tmp_path / "pictures").iterdir())) == 12
    assert read.rows[0].references == ("red", "<other>")
    worst = [row for row in read.rows if row.score == 0 and row.pictures]
    assert len(worst) >= 2
    with Image.open(tmp_path / worst[0].pictures[1]) as picture:
        assert max(picture.size) == 224


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0c"], ids=ascii)
def test_texts_of_a_table_may_hold_any_separator(separator: str, tmp_path: Path) -> None:
    said = f"a{separator}cat"
    report = top1_accuracy({"1": said}, {"1": said})
    table = prediction_table(
        "vqa", {"1": said}, {"1": [said]}, report, questions={"1": f"what{separator}is it?"}
    )
    (row,) = PredictionTable.load(table.save(tmp_path)).rows
    assert (row.prediction, row.references, row.question) == (said, (said,), f"what{separator}is it?")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000], ids=["deep", "long number"])
def test_a_table_that_does_not_read_is_refused(text: str, tmp_path: Path) -> None:
    path = make(None).save(tmp_path)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match="must be a table of predictions, but does not read"):
        PredictionTable.load(path)


def test_pictures_of_a_table_are_upright_and_of_known_formats(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", exif=exif)
    report = top1_accuracy({"1": "a"}, {"1": "a"})
    made = partial(prediction_table, "vqa", {"1": "a"}, {"1": ["a"]}, report, folder=tmp_path)
    table = made(images={"1": [buffer.getvalue()]})
    with Image.open(tmp_path / table.rows[0].pictures[0]) as picture:
        assert picture.size == (10, 20)
    with pytest.raises(CorruptMediaError, match="must be a whole image"):
        made(images={"1": [b"%!PS-Adobe-3.0"]})


def test_a_table_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = make(None).save(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:-2]), encoding="utf-8")
    with pytest.raises(FormatError, match="must hold 12 predictions, but holds 10"):
        PredictionTable.load(path)
    path.write_text(json.dumps({"task": "vqa"}), encoding="utf-8")
    with pytest.raises(FormatError, match="must be a table of predictions, but does not read"):
        PredictionTable.load(path)
    with pytest.raises(FormatError, match="must hold prediction tables"):
        tables_in(tmp_path / "pictures")


def test_a_scored_sample_without_reference_is_refused() -> None:
    report = top1_accuracy({1: "a"}, {1: "a"})
    with pytest.raises(ScoreInputError, match="must hold every scored sample, but 1 are missing, such as 1"):
        prediction_table("t", {1: "a"}, {1: []}, report)


def test_the_page_shows_groups_answers_confusions_and_pictures(tmp_path: Path) -> None:
    table = make(tmp_path, shift=1, images={f"q{i}": [encoded()] for i in range(12)})
    text = inspect_html({"vqa": table}, title="a <run>")
    assert "a &lt;run&gt;" in text
    assert "By question type" in text
    assert "By right answer" in text
    assert "Most frequent confusions" in text
    assert text.count("data:image/png;base64,") == 6
    assert "what colour is &lt;q1&gt;?" in text
    assert "http" not in text


def test_captions_have_no_table_of_answers() -> None:
    said = {i: f"a cat {i}" for i in range(4)}
    gold = {i: [f"one cat {i}", f"the cat {i}"] for i in range(4)}
    table = prediction_table("caption", said, gold, caption_scores(said, gold))
    text = inspect_html({"caption": table})
    assert table.best == 10
    assert "By right answer" not in text
    assert "Most frequent confusions" not in text


def test_two_runs_are_compared_where_they_disagree() -> None:
    text = inspect_html({"vqa": make(None)}, other={"vqa": make(None, shift=1)}, other_title="worse")
    assert "Inspection scores +50.00 [" in text
    assert "the scores differ on 6" in text
    assert "worse: green" in text
    assert '<p class="note">None.</p>' in text


def test_runs_without_a_common_task_or_sample_are_said_to_be_so() -> None:
    table = make(None)
    with pytest.raises(FormatError, match="must share a task, but have vqa and gqa"):
        inspect_html({"vqa": table}, other={"gqa": table})
    with pytest.raises(FormatError, match="`tables` must hold at least one task"):
        inspect_html({})
    report = top1_accuracy({"z": "a"}, {"z": "a"})
    strange = prediction_table("vqa", {"z": "a"}, {"z": ["a"]}, report)
    assert "share no sample of this task" in inspect_html({"vqa": table}, other={"vqa": strange})


def test_tables_travel_with_the_run(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    table = make(folder, images={"q0": [encoded()]})
    table.save(folder)
    with open_run(store, "e", "r") as run:
        run.log_artifacts(folder, "predictions")
    assert run.run_id is not None
    found = tables_of_run(store, run.run_id, download=tmp_path)["vqa"]
    assert found.rows == table.rows
    assert tables_of_run(store, run.run_id).keys() == {"vqa"}


def test_a_run_that_the_store_does_not_hold_is_named(store: Path) -> None:
    with pytest.raises(FormatError, match=r"`run_id` must be a run of the store .*, but 'nowhere' is none"):
        tables_of_run(store, "nowhere")


def rows_of(texts: dict[str, tuple[str, str, str]]) -> tuple[PredictionRow, ...]:
    return tuple(
        PredictionRow(key, "yes", (right,), 100.0, question=asked, media=media)
        for key, (asked, right, media) in texts.items()
    )


@pytest.mark.parametrize(
    "other",
    [("How many?", "yes", "a"), ("Is it red?", "no", "a"), ("Is it red?", "yes", "b")],
    ids=["another question", "another answer", "another picture"],
)
def test_runs_are_paired_by_record_and_not_by_id(other: tuple[str, str, str]) -> None:
    asked = dict.fromkeys("123", ("Is it red?", "yes", "a"))
    first = PredictionTable("vqa", "vqa", 100.0, rows_of(asked))
    assert len(paired_rows(first, PredictionTable("vqa", "vqa", 100.0, rows_of(asked)))) == 3
    second = PredictionTable("vqa", "vqa", 100.0, rows_of({**asked, "2": other}))
    message = (
        r"of the 3 ids that both have for task 'vqa' only 2 \(66\.7 %\) have the same .* '2', for instance"
    )
    with pytest.raises(FormatError, match=message):
        paired_rows(first, second)
    with pytest.raises(FormatError, match=message):
        inspect_html({"vqa": first}, title="one", other={"vqa": second}, other_title="two")
    comparison = Comparison([Row("a", {"vqa": 100.0}, run_id="1"), Row("b", {"vqa": 100.0}, run_id="2")])
    with pytest.raises(ComparisonError, match="'b' cannot be held against 'a'"):
        significance(comparison, "a", {"1": {"vqa": first}, "2": {"vqa": second}})


def test_tables_that_do_not_tell_their_pictures_are_paired_by_what_they_tell() -> None:
    old = PredictionTable("vqa", "vqa", 100.0, rows_of({"1": ("Is it red?", "yes", "")}))
    new = PredictionTable("vqa", "vqa", 100.0, rows_of({"1": ("Is it red?", "yes", "a")}))
    assert len(paired_rows(old, new)) == 1
