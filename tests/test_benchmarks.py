"""Benchmarks: their sides take turns, and their page is what the results say."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_the_page_and_the_table_of_the_readme_are_what_the_results_say(benchmarks: Any) -> None:
    table = benchmarks("table")
    assert table.page() == (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    assert table.BEGIN in readme
    assert table.with_summary(readme) == readme


def test_every_picture_of_the_page_is_drawn_from_the_results(benchmarks: Any, tmp_path: Path) -> None:
    benchmarks("plots").main(tmp_path)
    shown = set(re.findall(r"images/(\w+\.png)", benchmarks("table").page()))
    assert shown
    assert shown == {path.name for path in tmp_path.iterdir()}
    assert all((ROOT / "docs" / "images" / name).exists() for name in shown)


def test_a_library_has_one_colour_in_all_pictures(benchmarks: Any) -> None:
    colours = benchmarks("plots").COLOURS
    assert colours["MultiTask"] == colours["adapters"], "it is of that library"
    assert len({colours[name] for name in ("weft", "peft", "adapters", "BatchSplit")}) == 4


def test_cases_are_chosen_by_pattern_and_one_that_matches_none_is_named(benchmarks: Any) -> None:
    run = benchmarks("run")
    every = list(run.cases())
    assert run.chosen(every, ["alone_clip_*", "many_adapters"]) == [
        "alone_clip_lora",
        "alone_clip_bottleneck",
        "alone_clip_compacter",
        "many_adapters",
    ]
    assert run.chosen(every, ["*"]) == every
    with pytest.raises(SystemExit, match="must match a case, but 'alone_vit' matches none of imports"):
        run.chosen(every, ["alone_vit"])


def test_every_result_is_of_a_case_and_says_where_it_comes_from(benchmarks: Any) -> None:
    every = set(benchmarks("run").cases())
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        result = json.loads(path.read_text("utf-8"))
        assert path.stem == result["benchmark"]
        assert path.stem in every
        assert result["commit"] != "unknown"
        assert {"processor", "cores", "load", "python"} <= result["machine"].keys()


def test_a_case_writes_what_it_measured(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, options = benchmarks("run"), benchmarks("measure.options")
    heard: list[Any] = []
    monkeypatch.setattr(run, "cases", lambda: {"one": lambda given: heard.append(given) or {"found": 1}})
    monkeypatch.setattr(sys, "argv", ["run", "--quick", "--out", str(tmp_path)])
    run.main()
    assert heard == [options.Options(rounds=1, quick=True)]
    assert json.loads((tmp_path / "one.json").read_text("utf-8"))["found"] == 1


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
