"""What the pages show is true: their Python runs, their recipes are valid, their commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from weft.train.cli.app import app
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "recipes" / "README.md",
    *ROOT.glob("docs/**/*.md"),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in sorted(PAGES) if page.is_file()}


def blocks(text: str, language: str) -> list[str]:
    """Return the contents of a page's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def with_blocks(language: str) -> list[str]:
    """Return the pages that have fenced blocks of one language."""
    return [page for page, text in TEXTS.items() if blocks(text, language)]


def commands(page: str) -> list[tuple[str, str]]:
    """Return the two words after ``weft`` of every command that a page shows, in blocks and in lines."""
    text = "\n".join([*blocks(TEXTS[page], "console"), *re.findall(r"`([^`\n]+)`", TEXTS[page])])
    return re.findall(r"^(?:\$ )?weft ([a-z]+)(?: +(\S+))?", text, re.MULTILINE)


@pytest.mark.parametrize("page", with_blocks("python"))
def test_the_python_of_a_page_runs_as_one_program(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "register_" in TEXTS[page]:  # what a page registers stays in its process
        program = "\n".join(blocks(TEXTS[page], "python"))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks(TEXTS[page], "python"), start=1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_the_whole_recipes_of_a_page_are_valid(page: str) -> None:
    shown = [yaml.safe_load(block) for block in blocks(TEXTS[page], "yaml")]
    for recipe in shown:
        if {"backbone", "tasks"} <= recipe.keys():
            assert load_recipe(recipe).name == recipe["name"]


@pytest.mark.parametrize("page", TEXTS)
def test_the_commands_of_a_page_exist(page: str) -> None:
    known = {entry.name for entry in (*app.registered_commands, *app.registered_groups)}
    assert {command for command, _ in commands(page)} <= known


@pytest.mark.parametrize("page", TEXTS)
def test_the_recipes_that_a_command_of_a_page_names_exist(page: str) -> None:
    named = {
        argument
        for command, argument in commands(page)
        if command in {"plan", "train", "features"}
        and not argument.isupper()
        and not argument.endswith(".yaml")
    }
    assert named <= {*built_in_recipes(), ""}


def test_the_page_of_metrics_names_every_metric() -> None:
    from weft.eval.metrics.registry import METRICS

    page = TEXTS["docs/metrics.md"]
    named = {
        word
        for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
        for word in re.findall(r"`(\w+)`", row)
    }
    assert set(METRICS) <= named


def test_every_page_is_in_the_navigation_once() -> None:
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r": ([\w/]+\.md)$", settings.partition("nav:")[2], re.MULTILINE)
    assert len(listed) == len(set(listed))
    methods = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/methods/*.md")}
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert pages - methods <= set(listed) <= pages


@pytest.mark.parametrize("page", ["README.md", "docs/demo.md"])
def test_a_page_shows_the_table_of_the_demo_as_it_was_measured(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from demo_tables import kept, table

    measured = kept()
    assert {"single adapter", "full fine-tuning", "majority answer"} <= {row.label for row in measured.rows}
    assert table(measured) in TEXTS[page]


def test_the_prose_about_the_demo_has_the_shares_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from demo_tables import kept

    found = {(row.method, row.seed): fmean(row.scores.values()) for row in kept().rows}
    single, full = (
        [found[method, seed] for seed in range(3)] for method in ("single_adapter", "full_finetuning")
    )
    whole = f"keeps {100 * fmean(single) / fmean(full):.0f} % of full fine-tuning's average"
    first, second, third = (100 * one / all_ for one, all_ in zip(single, full, strict=True))
    seeds = f"({first:.0f}, {second:.0f} and {third:.0f} % for the three seeds)"
    assert f"{whole} {seeds}" in " ".join(TEXTS["docs/demo.md"].split())
    assert whole in " ".join(TEXTS["README.md"].split())
