"""The Python on the pages runs: all blocks of a page, in order, as one program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
PROGRAMS = {
    str(page.relative_to(ROOT)): FENCE.findall(page.read_text("utf-8"))
    for page in sorted(PAGES)
    if page.is_file() and FENCE.search(page.read_text("utf-8"))
}


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(PROGRAMS[page], start=1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
