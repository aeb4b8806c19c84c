"""The shape of the repository: versions, pins, typing marks, licences, file names and sizes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "core", "data", "eval", "train")
LONGEST_FILE = 400  # lines; past it, look for the second concept
SOURCES = sorted(ROOT.glob("packages/*/src/weft/**/*.py"))
PYTHON = sorted([*ROOT.glob("packages/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("docs/**/*.py")])


def project(package: str) -> dict[str, Any]:
    """Read the [project] table of a package."""
    text = (ROOT / "packages" / package / "pyproject.toml").read_text("utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


@pytest.mark.parametrize("package", PACKAGES)
def test_the_extras_of_a_package_bring_in_no_sibling(package: str) -> None:
    extras = project(package).get("optional-dependencies", {})
    assert [r for requirements in extras.values() for r in requirements if r.startswith("weft-")] == []


def test_all_packages_have_one_version() -> None:
    assert len({project(package)["version"] for package in PACKAGES}) == 1


def test_the_change_log_knows_the_version() -> None:
    log = (ROOT / "CHANGELOG.md").read_text("utf-8")
    version = project("core")["version"]
    assert f"## [{version}]" in log or "## [Unreleased]" in log


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_carries_what_its_wheel_must_hold(package: str) -> None:
    expected = ["README.md", "LICENSE", f"src/weft/{package}/__init__.py", f"src/weft/{package}/py.typed"]
    folder = ROOT / "packages" / package
    assert [name for name in expected if not (folder / name).is_file()] == []
    assert (folder / "LICENSE").read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")


def test_weft_is_a_namespace_without_a_file_of_its_own() -> None:
    assert list(ROOT.glob("packages/*/src/weft/*.py")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_holds_only_its_own_part_of_weft(package: str) -> None:
    files = (ROOT / "packages" / package / "src").glob("**/*.py")
    assert {path.relative_to(ROOT / "packages" / package / "src").parts[:2] for path in files} == {
        ("weft", package)
    }


def test_no_python_file_outgrows_one_concept() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in PYTHON}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_source_file_has_a_name_that_says_nothing() -> None:
    empty_names = {"utils", "util", "common", "helpers", "misc"}
    assert [str(path.relative_to(ROOT)) for path in SOURCES if path.stem in empty_names] == []


def test_recipes_stand_once_inside_the_package_that_ships_them() -> None:
    assert list((ROOT / "recipes").glob("**/*.y*ml")) == []


def test_the_page_on_recipes_names_every_group_of_them() -> None:
    page = (ROOT / "recipes" / "README.md").read_text("utf-8")
    folder = ROOT / "packages" / "train" / "src" / "weft" / "train" / "recipes"
    groups = {
        recipe.relative_to(folder).parts[0].removesuffix(".yaml") for recipe in folder.glob("**/*.yaml")
    }
    assert {group for group in groups if f"`{group}" not in page} == set()


def test_lines_end_at_newlines_alone() -> None:
    """`str.splitlines` also splits at U+2028 and U+0085, which stand within questions and answers."""
    assert [
        str(path.relative_to(ROOT)) for path in SOURCES if ".splitlines(" in path.read_text("utf-8")
    ] == []
