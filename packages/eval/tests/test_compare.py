from __future__ import annotations

import csv
import html.parser
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from weft.eval.compare import (
    Comparison,
    Row,
    Spread,
    curve_colours,
    learning_curves,
    pareto_plot,
    rows_from_csv,
    significance,
    task_bars,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
    to_terminal,
)
from weft.eval.compare.labels import place_labels
from weft.eval.compare.plots import method_colours
from weft.eval.errors import ComparisonError
from weft.eval.report import PredictionRow, PredictionTable


def rows() -> list[dict[str, Any]]:
    shapes = [("single", 50_000, 76.0), ("full", 1_000_000, 78.0), ("multiple", 200_000, 75.0)]
    made: list[dict[str, Any]] = [
        {
            "method": method,
            "label": f"{method} & co",
            "seed": seed,
            "trainable": trainable,
            "total": 1_000_000,
            "scores": {"vqa": score + seed, "caption": score - 10},
            "seconds": 10.0 + seed,
            "memory": 900.0 + seed,
        }
        for method, trainable, score in shapes
        for seed in (0, 1)
    ]
    made.insert(0, {"method": "majority", "control": True, "scores": {"vqa": 30.0, "caption": 10.0}})
    made.append({"method": "paper", "scores": {"vqa": 90.0, "caption": 90.0}, "published": "table 2"})
    return made


@pytest.fixture
def comparison() -> Comparison:
    return Comparison.from_rows(rows(), title="Two tasks")


def test_seeds_become_mean_and_standard_deviation(comparison: Comparison) -> None:
    single = comparison.entry("single")
    assert single.scores["vqa"].mean == 76.5
    assert single.scores["vqa"].std == pytest.approx(0.7071, abs=1e-4)
    assert single.average is not None
    assert single.average.mean == 71.25
    assert (single.percent, single.seconds, single.memory, single.seeds) == (5.0, 10.5, 901.0, (0, 1))
    assert Spread.of([1.0]).text() == "1.00"


def test_baselines_come_last_whatever_the_order_of_runs(comparison: Comparison) -> None:
    assert [entry.method for entry in comparison.entries] == [
        "single",
        "full",
        "multiple",
        "paper",
        "majority",
    ]


def test_the_front_holds_what_nobody_beats_in_both(comparison: Comparison) -> None:
    assert [entry.method for entry in comparison.front()] == ["single", "full"]


def test_a_task_missing_in_one_run_leaves_no_average() -> None:
    comparison = Comparison.from_rows([
        {"method": "a", "scores": {"vqa": 1.0, "gqa": 2.0}}, {"method": "b", "scores": {"vqa": 1.0}},
    ])  # fmt: skip
    assert comparison.entry("b").average is None
    assert "| b | **1.00** | – | – |" in to_markdown(comparison)


def test_markdown_marks_the_best_method_and_never_a_published_row(comparison: Comparison) -> None:
    lines = to_markdown(comparison).splitlines()
    assert lines[0] == "| method | vqa | caption | average | trainable % | seconds | peak MB | seeds |"
    assert "| full & co | **78.50 ± 0.71** | **68.00 ± 0.00** |" in lines[3]
    assert "paper (table 2) | 90.00 |" in lines[5]
    assert lines[6].startswith("| *majority* | 30.00")


def test_latex_is_escaped(comparison: Comparison) -> None:
    text = to_latex(comparison)
    assert r"full \& co & \textbf{78.50 $\pm$ 0.71}" in text
    assert r"trainable \%" in text
    assert text.count(r"\midrule") == 2


def test_csv_holds_every_run_in_full(comparison: Comparison) -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert len(read) == 8
    assert (read[1]["method"], read[1]["test/vqa"], read[1]["trainable"]) == ("single", "76.0", "50000")


def test_the_terminal_table_shortens_scores_before_it_breaks_cells(comparison: Comparison) -> None:
    wide, narrow = to_terminal(comparison, width=140), to_terminal(comparison, width=40)
    assert "78.50 ± 0.71" in wide
    assert "78.5 ± 0.7" in narrow
    assert "78.50" not in narrow
    assert "single & co" in narrow


def test_published_rows_are_read_from_a_table_and_csv_reads_back(comparison: Comparison) -> None:
    assert Comparison(rows_from_csv(to_csv(comparison))).entries == comparison.entries
    text = "method,test/vqa,test/caption,published\nother,91.5,,table 3 (read from a plot)\n"
    more = comparison.with_rows(rows_from_csv(text))
    assert more.entry("other").published == "table 3 (read from a plot)"
    assert more.entry("other").average is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,score\na,1\n", "but line 2 has 'score'"),
        ("label,test/vqa\na,1\n", "but line 2 has no method"),
        ("method,test/vqa\na,high\n", "must be a number, but line 2 has another"),
    ],
)
def test_tables_that_do_not_fit_are_refused(text: str, message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        rows_from_csv(text)


def _table(task: str, right: int) -> PredictionTable:
    samples = tuple(PredictionRow(str(i), "", ("a",), 100.0 * (i < right)) for i in range(60))
    return PredictionTable(task, "m", 100.0, samples)


def test_scores_that_differ_by_more_than_chance_carry_a_mark() -> None:
    runs = [("base", 0, 20), ("better", 0, 40), ("better", 1, 42), ("same", 0, 21), ("untested", 0, 30)]
    comparison = Comparison([
        Row(method, {"vqa": right / 0.6}, seed=seed, run_id=f"{method}{seed}") for method, seed, right in runs
    ])  # fmt: skip
    tables = {f"{method}{seed}": {"vqa": _table("vqa", right)} for method, seed, right in runs[:-1]}
    results = significance(comparison, "base", tables, resamples=500)
    assert set(results) == {("better", "vqa"), ("same", "vqa")}
    assert results["better", "vqa"].difference == pytest.approx(35)
    lines = to_markdown(comparison.with_marks(results)).splitlines()
    assert r"| better | **68.33 ± 2.36\*\*** |" in lines[3]
    assert "| same | 35.00 |" in lines[4]
    note = "* p < 0.05, ** p < 0.01 against base, paired over samples"
    marked = comparison.with_marks(results, "base")
    assert to_terminal(marked).endswith(f"{note}\n")
    assert note in to_html(marked).replace("&lt;", "<")
    with pytest.raises(ComparisonError, match="whose runs keep prediction tables, but 'untested' has none"):
        significance(comparison, "untested", tables)


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.headings += tag == "th"
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_nothing_from_outside_and_escapes_text(comparison: Comparison, tmp_path: Path) -> None:
    curves = learning_curves({"a": [(0, 1.0), (1, 0.5)]}, tmp_path / "curves.png")
    picture = curves.read_bytes()
    text = to_html(comparison, examples=[{"answer": "<b>cat</b>", "image": picture}], curves=curves)
    page = _Page()
    page.feed(text)
    assert page.headings == 8 + 2
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "&lt;b&gt;cat" in text
    assert 'data-value="78.5" class=best' in text


def test_a_page_without_sizes_says_why_there_is_no_plot() -> None:
    text = to_html(Comparison.from_rows([{"method": "a", "scores": {"vqa": 1.0}}]))
    assert "No Pareto plot" in text


def test_a_method_has_one_colour_whatever_the_order_of_runs_and_what_stands_beside():
    names = ["single adapter", "full fine-tuning", "single LoRA"]
    rows = [{"method": name, "scores": {"vqa": 50.0}} for name in names]
    beside = [
        {"method": "a paper's", "scores": {"vqa": 60.0}, "published": "A paper, table 1"},
        {"method": "majority", "scores": {"vqa": 9.0}, "control": True},
    ]
    colours = method_colours(Comparison.from_rows(rows))
    assert len(set(colours.values())) == 3
    assert method_colours(Comparison.from_rows(rows[::-1])) == colours
    assert colours.items() <= method_colours(Comparison.from_rows([*beside, *rows])).items()


def test_a_method_has_one_colour_in_every_picture(tmp_path: Path) -> None:
    rows = [
        {
            "method": m,
            "seed": seed,
            "run_id": f"{m}{seed}",
            "scores": {"vqa": score},
            "percent": share,
            "control": m == "c",
        }
        for m, score, share in (("a", 80.0, 5.0), ("b", 60.0, 9.0), ("c", 10.0, 1.0), ("d", 70.0, 2.0))
        for seed in (0, 1)
    ]
    comparison = Comparison.from_rows(rows)
    colours = method_colours(comparison)
    assert len(set(colours.values())) == 4
    curves = curve_colours(comparison)
    assert curves["b, seed 0"] == curves["b, seed 1"] == colours["b"]
    drawn = {
        "points": pareto_plot(comparison, tmp_path / "p.svg"),
        "bars": task_bars(comparison, tmp_path / "b.svg"),
        "curves": learning_curves(
            {label: [(0, 1.0), (1, 2.0)] for label in curves}, tmp_path / "c.svg", colours=curves
        ),
    }
    for path in drawn.values():
        assert all(colours[method] in path.read_text() for method in "abd"), path


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plots_are_written_whole(comparison: Comparison, tmp_path: Path, suffix: str) -> None:
    for draw in (pareto_plot, task_bars):
        path = draw(comparison, tmp_path / "new" / f"{draw.__name__}.{suffix}")
        assert path.stat().st_size > 5_000
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_whiskers_are_inside_the_pareto_plot_and_shares_are_plain_percents(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("weft.eval.compare.plots._save", lambda figure, path: figures.append(figure))
    told = [
        {
            "method": method,
            "seed": seed,
            "trainable": size,
            "total": 100_000,
            "scores": {"vqa": 70.0 + 6 * seed},
        }
        for method, size in (("single", 900), ("multiple", 1_700))
        for seed in (-1, 0, 1)
    ]
    pareto_plot(Comparison.from_rows(told), tmp_path / "p.png")
    (axes,) = figures[0].axes
    FigureCanvasAgg(figures[0]).draw()
    low, high = axes.get_ylim()
    assert low < 64 < 76 < high
    shown = [tick.get_text() for which in ("major", "minor") for tick in axes.get_xticklabels(which=which)]
    assert {"1%", "2%"} <= set(shown)
    assert all(text.endswith("%") or not text for text in shown)


def test_labels_cover_neither_each_other_nor_points() -> None:
    figure = Figure(figsize=(9, 5))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    points = [(5.0, 70.0 + 0.3 * i, f"a rather long name {i}") for i in range(4)] + [(5.2, 71.0, "another")]
    axes.set_xlim(0.5, 100)
    axes.set_ylim(60, 80)
    place_labels(axes, points, line=[(1, 62), (5, 71), (90, 72)], color="black")
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert len(boxes) == len(points)
    assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent(renderer)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "`rows` must hold at least one finished run"),
        ([{"method": "a"}], "row 0 lacks 'scores' and has nothing unknown"),
        ([{"method": "a", "scores": {}, "secs": 1}], "has 'secs' unknown"),
        ([{"method": "a", "scores": {"vqa": float("nan")}}], r"row 0 \(a\) has others for 'vqa'"),
        ([{"method": "a", "scores": {"vqa": 1.0}}] * 2, r"'a' has seeds \[0, 0\]"),
        (
            [{"method": "a", "scores": {}, "trainable": 1}, {"method": "a", "scores": {}, "seed": 1}],
            "must train the same parameters, but 'a'",
        ),
    ],
    ids=["empty", "no scores", "unknown field", "nan", "same seed", "other counts"],
)
def test_rows_that_do_not_fit_are_refused(given: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        Comparison.from_rows(given)


def test_an_unknown_method_is_named_with_the_known_ones(comparison: Comparison) -> None:
    with pytest.raises(ComparisonError, match=r"`method` must be one of single, full, .* but is 'lora'"):
        comparison.entry("lora")


def test_plots_of_nothing_are_refused(tmp_path: Path) -> None:
    bare = Comparison([Row("a", {"vqa": 1.0})])
    with pytest.raises(ComparisonError, match="needs a method with scores on all tasks and parameter counts"):
        pareto_plot(bare, tmp_path / "p.png")
    with pytest.raises(ComparisonError, match="`curves` must hold at least one point"):
        learning_curves({"a": []}, tmp_path / "c.png")
