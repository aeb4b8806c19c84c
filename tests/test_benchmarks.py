"""Benchmarks: their sides take turns, and their page is what the results say."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_the_page_is_what_the_results_say(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = benchmarks("table")
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")
    table.main()
    assert (tmp_path / "page.md").read_text("utf-8") == (ROOT / "docs" / "benchmarks.md").read_text("utf-8")


def test_sides_take_turns_and_count_their_own_steps(benchmarks: Any) -> None:
    sides = benchmarks("measure.sides")
    serve = "from benchmarks.measure.turns import Turns; print('noise'); Turns().serve(lambda: print('step'), own={})"
    made = [
        sides.Side(name, [sys.executable, "-c", serve.format(number)]) for number, name in enumerate("ab")
    ]
    rows = sides.in_turns(made, rounds=3, steps=2)
    assert [(row["side"], row["own"], row["steps"]) for row in rows] == [("a", 0, 6), ("b", 1, 6)]
    assert all(row["peak_mib"] > 1 and row["cpu_ms"] >= 0 for row in rows)


def test_a_side_that_ends_early_is_named(benchmarks: Any) -> None:
    sides = benchmarks("measure.sides")
    with pytest.raises(RuntimeError, match="'broken' ended before its turn"):
        sides.in_turns([sides.Side("broken", [sys.executable, "-c", "pass"])], rounds=1, steps=1)
