"""One page that shows where a run goes wrong: groups, answers, confusions, worst examples, disagreements."""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from weft.eval.errors import FormatError
from weft.eval.metrics.significance import paired_test
from weft.eval.rendering.page import page
from weft.eval.rendering.parts import cell, picture, sortable_table, table_row
from weft.eval.report.pairing import paired_rows, scores_alone
from weft.eval.report.predictions import PredictionRow, PredictionTable

_SHOWN_ANSWERS = 15
_SHOWN_CONFUSIONS = 12
_SHOWN_EXAMPLES = 24
_STYLE = """
<style>
nav a { margin-right: 1rem; color: var(--accent); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .7rem; overflow-wrap: anywhere; }
.card img { height: 7rem; margin-right: .3rem; }
.card p { margin: .35rem 0 0; } .wrong { color: #d1495b; } .right { color: var(--accent); }
td:has(.bar) { text-align: left; }
td .bar { display: inline-block; height: .6rem; background: var(--accent); border-radius: 3px; }
details { margin: .6rem 0; } summary { cursor: pointer; }
</style>
"""


def inspect_html(
    tables: Mapping[str, PredictionTable],
    *,
    title: str = "Inspection",
    other: Mapping[str, PredictionTable] | None = None,
    other_title: str = "the other run",
) -> str:
    """Render one self-contained page about a run, or about how it differs from another.

    For each task: the mean score in every group, the accuracy of the most frequent right answers, the most
    frequent confusions, the worst examples with their pictures; with a second run, the examples on which the
    two disagree and a paired test of the difference.

    Args:
        tables: Task to table; see `tables_in` and `tables_of_run`.
        title: Name of the run.
        other: The same for a second run.
        other_title: Name of the second run.

    Returns:
        The page.

    Raises:
        FormatError: There is no table, or the second run shares no task with the first.
    """
    if not tables:
        raise FormatError("`tables` must hold at least one task, but is empty. Evaluate the run first.")
    if other is not None and not set(tables) & set(other):
        raise FormatError(
            f"The two runs must share a task, but have {', '.join(tables)} and {', '.join(other)}. "
            "Choose runs of the same tasks."
        )
    name = html.escape(title)
    links = "".join(f'<a href="#{html.escape(task)}">{html.escape(task)}</a>' for task in tables)
    parts = [_STYLE, f"<h1>{name}</h1><nav>{links}</nav>"]
    for task, table in tables.items():
        parts.append(f'<h2 id="{html.escape(task)}">{html.escape(task)}</h2>')
        parts.append(_summary(table))
        parts += [_groups(table), _answers(table), _confusions(table)]
        if other is not None and task in other:
            parts.append(_disagreement(table, other[task], title, other_title))
        worst = sorted(table.rows, key=lambda row: (row.score, not row.pictures))
        shown = [row for row in worst if row.score < table.best][:_SHOWN_EXAMPLES]
        parts += ["<h3>Worst examples</h3>", _cards(shown, table)]
    return page(name, "\n".join(parts))


def _mean(rows: Sequence[PredictionRow]) -> float:
    return sum(row.score for row in rows) / len(rows)


def _summary(table: PredictionTable) -> str:
    return (
        f"<p>{len(table.rows)} samples, mean {_mean(table.rows):.2f} of {table.best:g}, "
        f'<span class="note">{html.escape(table.metric)}</span></p>'
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[tuple[str, object]]]) -> str:
    """A sortable table of `(shown, sorted by)` cells."""
    return sortable_table(columns, (table_row(cell(*content) for content in row) for row in rows))


def _gathered(named: Iterable[tuple[str, PredictionRow]]) -> dict[str, list[PredictionRow]]:
    found: dict[str, list[PredictionRow]] = defaultdict(list)
    for name, row in named:
        found[name].append(row)
    return found


def _score_row(name: str, rows: Sequence[PredictionRow], best: float) -> list[tuple[str, object]]:
    mean = _mean(rows)
    bar = f'<span class="bar" style="width:{8 * mean / best:.2f}rem"></span>'
    return [(html.escape(name), name), (f"{mean:.2f}", mean), (bar, mean), (str(len(rows)), len(rows))]


def _groups(table: PredictionTable) -> str:
    parts = []
    for axis in dict.fromkeys(axis for row in table.rows for axis in row.groups):
        members = _gathered((row.groups[axis], row) for row in table.rows if axis in row.groups)
        rows = [_score_row(name, group, table.best) for name, group in sorted(members.items())]
        parts.append(f"<h3>By {html.escape(axis.replace('_', ' '))}</h3>")
        parts.append(_table([axis.replace("_", " "), "score", "", "samples"], rows))
    return "\n".join(parts)


def _answers(table: PredictionTable) -> str:
    members = _gathered((row.references[0], row) for row in table.rows)
    if len(members) > len(table.rows) / 2:
        return ""
    frequent = sorted(members.items(), key=lambda item: -len(item[1]))[:_SHOWN_ANSWERS]
    rows = [_score_row(name, group, table.best) for name, group in frequent]
    return "<h3>By right answer</h3>" + _table(["answer", "score", "", "samples"], rows)


def _confusions(table: PredictionTable) -> str:
    wrong = Counter(
        (row.references[0], row.prediction) for row in table.rows if row.prediction not in row.references
    )
    repeated = [(pair, count) for pair, count in wrong.most_common(_SHOWN_CONFUSIONS) if count > 1]
    if not repeated:
        return ""
    rows = [
        [(html.escape(right), right), (html.escape(said), said), (str(count), count)]
        for (right, said), count in repeated
    ]
    return "<h3>Most frequent confusions</h3>" + _table(["right", "predicted", "times"], rows)


def _cards(rows: Sequence[PredictionRow], table: PredictionTable) -> str:
    if not rows:
        return '<p class="note">None.</p>'
    return '<div class="cards">' + "".join(_card(row, table, row.prediction) for row in rows) + "</div>"


def _card(row: PredictionRow, table: PredictionTable, said: str, also: str = "") -> str:
    pictures = ""
    if table.folder is not None:
        found = [table.folder / name for name in row.pictures if (table.folder / name).is_file()]
        pictures = "".join(picture(path.read_bytes(), f"picture of {row.id}") for path in found)
    kind = "right" if row.score >= table.best else "wrong"
    return (
        f'<div class="card">{pictures}<p>{html.escape(row.question)}</p>'
        f'<p class="{kind}">{html.escape(said) or "(empty)"}</p>{also}'
        f"<p>right: {html.escape(' / '.join(row.references[:3]))}</p>"
        f'<p class="note">{html.escape(row.id)}, score {row.score:.2f}</p></div>'
    )


def _disagreement(table: PredictionTable, other: PredictionTable, title: str, other_title: str) -> str:
    pairs = paired_rows(table, other)
    if not pairs:
        return '<p class="note">The two runs share no sample of this task.</p>'
    result = paired_test(
        scores_alone({row.id: row.score for row, _ in pairs}, table.metric),
        scores_alone({mate.id: mate.score for _, mate in pairs}, other.metric),
    )
    apart = [(row, mate) for row, mate in pairs if row.score != mate.score]
    apart.sort(key=lambda pair: (-abs(pair[0].score - pair[1].score), not pair[0].pictures))
    name = html.escape(other_title)
    cards = [
        _card(row, table, f"{title}: {row.prediction}", f"<p>{name}: {html.escape(mate.prediction)}</p>")
        for row, mate in apart[:_SHOWN_EXAMPLES]
    ]
    return (
        f"<h3>Against {name}</h3><p>{html.escape(title)} scores {result.difference:+.2f} "
        f"[{result.low:+.2f}, {result.high:+.2f}] against it, p = {result.p_value:.4f}, over {result.n} common "
        f"samples; the scores differ on {len(apart)}.</p><details><summary>Where they disagree</summary>"
        f'<div class="cards">{"".join(cards)}</div></details>'
    )
