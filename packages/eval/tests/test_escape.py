"""Labels are anybody's text: wherever they are written, they stand there as they are."""

from __future__ import annotations

import csv
import html.parser
import io
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from weft.core.few_shot.explain import Explanation, Vote
from weft.eval.compare import (
    Comparison,
    learning_curves,
    pareto_plot,
    rows_from_csv,
    task_bars,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
    to_terminal,
)
from weft.eval.rendering.escape import plot_legend
from weft.eval.report.votes import votes_picture

ODD = ["lora [rank 8]", "[/]", r"$\frac{$ one $", "=1+1", "_hidden", "<b>&amp;|*a*", ":smile:", "'=2", "*x"]


@pytest.fixture
def comparison() -> Comparison:
    rows = [
        {"method": label, "trainable": 1 + place, "total": 100, "scores": {"vqa": place, "$a_[b]$": 1.0}}
        for place, label in enumerate(ODD)
    ]
    return Comparison.from_rows(
        [*rows, {"method": "$x^$", "control": True, "scores": rows[0]["scores"]}], "[b] $t$"
    )


@pytest.mark.parametrize("label", ODD)
def test_a_terminal_shows_a_label_as_it_is(label: str, comparison: Comparison) -> None:
    shown = to_terminal(comparison, width=200)
    assert label in shown
    assert "[b] $t$" in shown
    assert "$a_[b]$" in shown


def test_markdown_shows_labels_and_nothing_else(comparison: Comparison) -> None:
    text = to_markdown(comparison)
    assert r"| lora \[rank 8\] |" in text
    assert r"| \<b\>\&amp;\|\*a\* |" in text
    assert r"| \$a\_\[b\]\$ |" in text
    assert "| a b |" in to_markdown(Comparison.from_rows([{"method": "a\nb", "scores": {"t": 1.0}}]))


def test_latex_reads_no_label_as_an_argument(comparison: Comparison) -> None:
    lines = to_latex(comparison).splitlines()
    assert any(line.startswith("{[}/] & ") for line in lines)
    assert any(line.startswith("{*}x & ") for line in lines)
    assert any(line.startswith(r"\$\textbackslash{}frac\{\$ one \$ & ") for line in lines)
    assert any(line.startswith(r"\textless{}b\textgreater{}\&amp;\textbar{}*a* & ") for line in lines)


def test_no_cell_of_a_csv_is_a_formula_and_all_read_back(comparison: Comparison) -> None:
    text = to_csv(comparison)
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "-"))]
    assert [row.label for row in rows_from_csv(text)] == [row.label for row in comparison.rows]
    numbers = to_csv(Comparison.from_rows([{"method": "a", "scores": {"t": -1.5}}]))
    assert ",-1.5," in numbers


def test_a_page_holds_labels_as_text(comparison: Comparison) -> None:
    found: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Reader().feed(to_html(comparison, examples=[{"<i>": "</td><script>"}]))
    assert {*ODD, "<i>", "</td><script>"} <= set(found)


def test_plots_draw_labels_as_they_are(comparison: Comparison, tmp_path: Path) -> None:
    pareto_plot(comparison, tmp_path / "pareto.png")
    task_bars(comparison, tmp_path / "bars.png")
    learning_curves({label: [(0, 1.0)] for label in ODD}, tmp_path / "curves.png", ylabel="$x_$")
    why = Explanation(0, 1, 0.5, 0.1, (Vote(0, 1, 0.5, {"image": 0.1}),))
    votes_picture([[[0.0]]], [why], [[[0.0]]], ODD[2:4], tmp_path / "votes.png")


def test_a_legend_names_everything() -> None:
    axes = Figure().add_subplot()
    plot_legend(axes, [axes.plot([0], [1])[0] for _ in ODD], ODD)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text().replace(r"\$", "$") for text in legend.get_texts()] == ODD
