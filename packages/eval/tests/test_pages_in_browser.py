"""The pages of comparisons and inspections in headless Chromium: headings are clicked, and no script fails."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from weft.eval.compare import Comparison, to_html
from weft.eval.metrics import top1_accuracy
from weft.eval.report import inspect_html, prediction_table

pytestmark = pytest.mark.slow

COLOURS = ["red", "green", "blue"]
_FIRST_COLUMN = (
    "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[0].textContent)"
)


@pytest.fixture(scope="module")
def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on the path; tried {', '.join(names)}")
    return found


def visit(browser: str, folder: Path, page: str, steps: str) -> Any:
    """Open a page, run `steps` in it as a visitor's hand would, and return what they gave.

    Whatever goes wrong in the page, and whatever it asks of the network, is given back as an error.
    """
    script = (
        "<script>const seen = []; window.onerror = message => { document.title = message };"
        "const asked = e => e.name.startsWith('data:') || (document.title = 'asks for ' + e.name);"
        "new PerformanceObserver(l => l.getEntries().forEach(asked)).observe({type: 'resource', buffered: true});"
        "</script>"
    )
    end = f"<script>{steps}; document.body.innerHTML = '<pre>' + JSON.stringify(seen) + '</pre>';</script>"
    path = folder / "page.html"
    path.write_text(
        page.replace("<head>", f"<head>{script}", 1).replace("</body>", f"{end}</body>", 1), encoding="utf-8"
    )
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [browser, *options, "--virtual-time-budget=2000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    shown = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert shown is not None, f"the page stopped with {title.group(1) if title else 'no title'!r}"
    assert title is not None
    return title.group(1), json.loads(html.unescape(shown.group(1)))


def test_a_click_on_a_heading_sorts_the_comparison_and_a_second_one_turns_it(
    browser: str, tmp_path: Path
) -> None:
    rows = [
        {"method": "b", "scores": {"vqa": 61.0}, "trainable": 10, "total": 1_000},
        {"method": "c", "scores": {"vqa": 9.5}, "trainable": 30, "total": 1_000},
        {"method": "a", "scores": {"vqa": 78.0}, "trainable": 200, "total": 1_000},
    ]
    page = to_html(Comparison.from_rows(rows, title="Clicked"), examples=[{"answer": "<b>cat</b>"}])
    click = "document.querySelectorAll('table.sortable th button')[1].click(); "
    note = f"seen.push({_FIRST_COLUMN}); "
    state = "seen.push([...document.querySelectorAll('table.sortable th')].map(h => h.getAttribute('aria-sort'))); "
    loaded = "seen.push([...document.images].every(i => i.complete && i.naturalWidth > 100))"
    title, seen = visit(browser, tmp_path, page, note + click + note + state + click + note + loaded)
    assert title == "Clicked"
    first, downwards, marks, upwards, pictures = seen
    assert sorted(first) == ["a", "b", "c"]
    # By number, not by letter: 9.5 is least.
    assert (downwards, upwards) == (["a", "b", "c"], ["c", "b", "a"])
    assert [mark for mark in marks if mark] == ["descending"]
    assert marks[1] == "descending"
    assert pictures


def test_the_inspection_sorts_opens_and_jumps(browser: str, tmp_path: Path) -> None:
    def table(shift: int) -> Any:
        ids = [f"q{i}" for i in range(12)]
        gold = {key: COLOURS[i % 3] for i, key in enumerate(ids)}
        said = {key: COLOURS[(i + (shift if i % 4 == 0 else 0)) % 3] for i, key in enumerate(ids)}
        return prediction_table(
            "vqa",
            said,
            {key: [value] for key, value in gold.items()},
            top1_accuracy(said, gold),
            questions=dict.fromkeys(ids, "what <colour> is it?"),
            groups={"question_type": {key: f"type {i % 2}" for i, key in enumerate(ids)}},
        )

    page = inspect_html({"vqa": table(1)}, title="Looked into", other={"vqa": table(0)})
    steps = """
        const heads = document.querySelectorAll('table.sortable th button');
        heads[1].click();
        heads[1].click();
        const rows = [...document.querySelector('table.sortable').tBodies[0].rows];
        seen.push(rows.map(row => +row.cells[1].textContent));
        const folded = document.querySelector('details');
        const card = folded.querySelector('.card');
        seen.push(card.checkVisibility());
        folded.querySelector('summary').click();
        seen.push(folded.open && card.checkVisibility());
        document.querySelector('nav a').click();
        seen.push(location.hash, document.querySelector(location.hash).textContent);
        seen.push(document.querySelector('colour') === null);
    """
    title, (scores, before, after, place, heading, escaped) = visit(browser, tmp_path, page, steps)
    assert title == "Looked into"
    assert scores == sorted(scores)
    assert len(set(scores)) > 1
    assert (before, after) == (False, True)
    assert (place, heading) == ("#vqa", "vqa")
    assert escaped
