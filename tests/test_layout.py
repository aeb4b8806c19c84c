"""The shape of the repository: versions, pins, typing marks, licences, file names and sizes."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "core", "data", "eval", "train")
LONGEST_FILE = 400  # lines; past it, look for the second concept
SOURCES = sorted(ROOT.glob("packages/*/src/weft/**/*.py"))
LONGEST_FUNCTION = 60  # lines, with its docstring


class Limits(NamedTuple):
    """What a package may grow to."""

    entries: int  # at its root
    chain: int  # files of the longest chain of imports
    circling: int  # modules that reach themselves by their imports
    long_functions: int  # of more than LONGEST_FUNCTION lines


# The goal of each package is 14, 9, 0, 0 (kernels may keep long functions). Only ever lower these.
LIMITS = {
    "kernels": Limits(13, 8, 0, 10),
    "core": Limits(14, 9, 0, 0),
    "data": Limits(14, 9, 0, 0),
    "eval": Limits(12, 9, 0, 0),
    "train": Limits(14, 9, 0, 0),
}
PYTHON = sorted([*ROOT.glob("packages/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("docs/**/*.py")])


def project(package: str) -> dict[str, Any]:
    """Read the [project] table of a package."""
    text = (ROOT / "packages" / package / "pyproject.toml").read_text("utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def source_of(package: str) -> Path:
    """The folder with a package's sources."""
    return ROOT / "packages" / package / "src" / "weft" / package


def imports_within(package: str) -> dict[str, set[str]]:
    """Module to the modules of its package that it imports, however deep; an `__init__` counts as neither."""
    files = {
        ".".join(["weft", package, *path.relative_to(source_of(package)).with_suffix("").parts]): path
        for path in source_of(package).rglob("*.py")
        if path.stem != "__init__" and "testing" not in path.parts
    }
    return {
        module: {
            name for node in ast.walk(ast.parse(path.read_text("utf-8"))) for name in named(node)
        }.intersection(files)
        - {module}
        for module, path in files.items()
    }


def reached(uses: dict[str, set[str]], module: str) -> set[str]:
    """Every module that one imports, by way of others too; itself only where it is in a circle."""
    found, open_ends = set[str](), [module]
    while open_ends:
        new = uses[open_ends.pop()] - found
        found |= new
        open_ends += new
    return found


def named(node: ast.AST) -> list[str]:
    """Every dotted name that an import may mean: `from a import b` may mean the module `a.b`."""
    match node:
        case ast.Import(names=aliases):
            return [alias.name for alias in aliases]
        case ast.ImportFrom(module=str(module), names=aliases, level=0):
            return [module, *(f"{module}.{alias.name}" for alias in aliases)]
        case _:
            return []


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


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_few_entries_at_its_root(package: str) -> None:
    names = {path.name for path in source_of(package).iterdir()} - {"py.typed", "__pycache__"}
    assert len(names) <= LIMITS[package].entries, sorted(names)


@pytest.mark.parametrize("package", PACKAGES)
def test_chains_of_imports_are_short(package: str) -> None:
    uses, longest = imports_within(package), dict[str, list[str]]()

    def chain_from(module: str, above: tuple[str, ...] = ()) -> list[str]:
        if module in above:
            return []
        if module not in longest:
            chains = [chain_from(other, (*above, module)) for other in sorted(uses[module])]
            longest[module] = [module, *max(chains, key=len, default=[])]
        return longest[module]

    chain = max(map(chain_from, sorted(uses)), key=len)
    assert len(chain) <= LIMITS[package].chain, " > ".join(chain)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_not_even_by_way_of_others_lazily_or_for_types(package: str) -> None:
    uses = imports_within(package)
    circling = {module for module in uses if module in reached(uses, module)}
    assert len(circling) <= LIMITS[package].circling, sorted(circling)


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_short(package: str) -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in source_of(package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert len(long) <= LIMITS[package].long_functions, long


def test_every_fault_that_is_planted_finds_its_place() -> None:
    listed = yaml.safe_load((ROOT / "scripts" / "planted_faults.yaml").read_text("utf-8"))
    lost = [
        f"{package}: {fault['fault']}"
        for package, faults in listed.items()
        for fault in faults
        if not (path := source_of(package) / fault["file"]).is_file()
        or path.read_text("utf-8").count(fault["find"]) != 1
    ]
    assert lost == []


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
