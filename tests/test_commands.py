"""README.md, continuous integration and the noxfile speak of the same commands."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEMO_COMMAND = "python -m pip install nox && python -m nox -s demo"
TEST_COMMAND = "python -m nox -s tests"
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md"))]


def sessions() -> dict[str, ast.FunctionDef]:
    """Return the functions of noxfile.py that are decorated as sessions, by name."""
    return {
        node.name: node
        for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def test_readme_gives_the_two_commands_of_a_newcomer() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert DEMO_COMMAND in readme
    assert TEST_COMMAND in readme


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert f"python -m pip install nox && {TEST_COMMAND}" in script


def test_continuous_integration_runs_the_default_sessions_and_others_that_exist() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    default = re.search(r"nox\.options\.sessions = \[(.*)\]", (ROOT / "noxfile.py").read_text("utf-8"))
    assert default is not None
    run = {name for line in re.findall(r"nox -s ((?:\w+ )+)", script) for name in line.split()}
    assert set(re.findall(r'"(\w+)"', default.group(1))) <= run <= set(sessions())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_the_script_of_continuous_integration_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("page", PAGES)
def test_every_nox_session_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"nox (?:-R )?-s ['\"]?(\w+)", (ROOT / page).read_text("utf-8"))
    assert set(named) <= set(sessions())


def test_every_nox_session_says_in_a_line_what_it_is_for() -> None:
    assert [name for name, function in sessions().items() if not ast.get_docstring(function)] == []


def test_the_script_and_the_noxfile_name_no_path_of_one_machine() -> None:
    for name in (".ci/run", "noxfile.py", "constraints.txt", "pyproject.toml"):
        assert not re.search(r"/(?:home|Users|work|root|opt)/", (ROOT / name).read_text("utf-8")), name


def test_a_file_of_tests_that_cannot_be_imported_fails_the_suite() -> None:
    # With the option pytest counts such a file as one skipped doctest, and its tests are gone without a word.
    for name in (".ci/run", "noxfile.py", "pyproject.toml"):
        assert "--doctest-ignore-import-errors" not in (ROOT / name).read_text("utf-8"), name
