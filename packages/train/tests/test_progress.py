import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from weft.train.output.progress import PlainProgress, RichProgress
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute

TASKS = ["vqa", "gqa", "nlvr", "caption", "retrieval_english", "video_questions"]
TITLE = "train half-shared adapters, learning_rate 0.001"


def words(tasks: list[str]) -> list[str]:
    return ["loss 2.345", "1,234 samples/s", "15,360 MiB", *(f"{task} 1.23" for task in tasks)]


def test_plain_progress_writes_lines():
    lines: list[str] = []
    progress = PlainProgress(lines.append, every=0.0)
    with progress.bar("work", 4) as advance:
        progress.note("loss 1", "vqa 1")
        advance(2)
    assert lines[0].startswith("work: 2 of 4")
    assert lines[0].endswith("left, loss 1, vqa 1")
    assert lines[1].startswith("work: 2 in ")


def test_what_is_said_is_a_line_of_its_own_beside_the_bars(capsys):
    lines: list[str] = []
    PlainProgress(lines.append).say("vqa: 2 records are left out")
    assert lines == ["vqa: 2 records are left out"]
    RichProgress().say("vqa: [2] records are left out")
    assert capsys.readouterr().err == "vqa: [2] records are left out\n"


def test_plain_progress_leaves_what_was_done_before_out_of_its_speed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    lines: list[str] = []
    progress = PlainProgress(lines.append, every=1.0)
    with progress.bar("train", 1000, 500) as advance:
        now[0] = 10.0
        advance(510)
        with progress.bar("validation", 3):
            progress.note("inner")
        now[0] = 490.0
        advance(1000)
    assert lines[0] == "train: 510 of 1000, about 490 s left"
    assert lines[-1] == "train: 1000 in 490.0 s, 1.02 a second"


@pytest.fixture
def bars(monkeypatch) -> list[Any]:
    """What rich shows; it draws nothing on its own here."""
    made: list[Any] = []

    def keep(bars: Any) -> None:
        if bars not in made:
            made.append(bars)

    monkeypatch.setattr("rich.progress.Progress.start", keep)
    monkeypatch.setattr("rich.progress.Progress.stop", lambda bars: None)
    monkeypatch.setattr("rich.progress.Progress.refresh", lambda bars: None)
    return made


def drawn(bars: Any, width: int) -> list[str]:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as taken:
        console.print(bars.get_renderable())
    return [line.rstrip() for line in taken.get().splitlines() if line.strip()]


@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_lose_no_word_at_any_width(bars: list[Any], width: int, number: int) -> None:
    progress = RichProgress()
    progress.note("too early")
    with progress.bar(TITLE, 20_000, 37) as advance:
        advance(111)
        progress.note(*words(TASKS[:number]))
        lines = drawn(bars[0], width)
    assert all(len(line) <= width for line in lines)
    assert re.fullmatch(r"train half.* 111/20000 [\d:-]+", lines[0])
    assert ", ".join(lines[1:]) == ", ".join(words(TASKS[:number]))


def test_a_bar_within_another_leaves_its_words_alone(bars: list[Any]) -> None:
    progress = RichProgress()
    with progress.bar("train", 4) as advance:
        progress.note("loss 1")
        with progress.bar("validation vqa", 12) as inner:
            inner(3)
            assert [line.split()[0] for line in drawn(bars[0], 60)] == ["train", "validation", "loss"]
        advance(2)
        assert [line.split()[0] for line in drawn(bars[0], 60)] == ["train", "loss"]
        progress.note("loss 2")
        assert drawn(bars[0], 60)[-1] == "loss 2"
    assert len(bars) == 1
    with progress.bar("test", 4):
        assert len(bars) == 2


def test_progress_tells_losses_speed_and_memory(values):
    lines: list[str] = []
    execute(load_recipe(values, ["training.log_every=1"]), progress=PlainProgress(lines.append, every=0.0))
    (said,) = (line for line in lines if line.startswith("train tiny: 6 of 6"))
    assert re.search(r"0 s left, loss [\d.]+, [\d.]+ samples/s, [\d,]+ MiB, (vqa|nlvr) [\d.]+$", said), said


@pytest.mark.parametrize("title", ["lora [rank 8]", "[/]", ":smile:"])
def test_a_title_in_square_brackets_is_no_markup(title, monkeypatch):
    shown = Console(force_terminal=True, width=80, record=True, file=io.StringIO())
    monkeypatch.setattr("rich.progress.get_console", lambda: shown)
    progress = RichProgress()
    with progress.bar(title, 2) as advance:
        advance(1)
        progress._bars.refresh()
    assert title in shown.export_text()
