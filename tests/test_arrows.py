"""Nothing imports upward or sideways: every import of every package is read, however deep or lazy."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Which packages each one may import; docs/concepts.md draws the same arrows.
ARROWS = {
    "kernels": set(),
    "core": {"kernels"},
    "data": set(),
    "eval": {"core", "data"},
    "train": {"eval", "core", "data"},
}
LOADERS = {"import_module", "__import__", "find_spec", "load_module"}


def imported_parts(path: Path) -> set[str]:
    """Return the parts of weft that a file imports: by statement, or by name in a call that loads modules."""
    names = [name for node in ast.walk(ast.parse(path.read_text("utf-8"))) for name in names_in(node, path)]
    return {name.split(".")[1] for name in names if name.startswith("weft.")}


def names_in(node: ast.AST, path: Path) -> list[str]:
    """Return the dotted names that one syntax node imports, absolute ones even for relative imports."""
    match node:
        case ast.Import(names=aliases):
            return [alias.name for alias in aliases]
        case ast.ImportFrom(module=module, names=aliases, level=level):
            base = package_of(path)[: -(level - 1) or None] if level else []
            origin = [*base, *([module] if module else [])]
            return [".".join([*origin, alias.name]) for alias in aliases]
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=arguments) if (
            called in LOADERS
        ):
            return [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        case _:
            return []


def package_of(path: Path) -> list[str]:
    """Return the parts of the package a source file lies in: ``["weft", "core", "units"]``."""
    folders = path.parent.parts
    return list(folders[folders.index("src") + 1 :]) if "src" in folders else []


def below(package: str) -> set[str]:
    """Return a package and everything its arrows reach, which is what its wheel is installed with."""
    return {package}.union(*(below(lower) for lower in ARROWS[package]))


def wrong_imports(folder: Path, allowed: set[str]) -> dict[str, list[str]]:
    """Return, by file, the parts of weft that files of a folder import without being allowed to."""
    found = {path: imported_parts(path) - allowed for path in sorted(folder.glob("**/*.py"))}
    return {str(path.relative_to(ROOT)): sorted(parts) for path, parts in found.items() if parts}


@pytest.mark.parametrize("package", ARROWS)
def test_the_sources_of_a_package_import_only_what_its_arrows_point_to(package: str) -> None:
    assert wrong_imports(ROOT / "packages" / package / "src", ARROWS[package] | {package}) == {}


@pytest.mark.parametrize("package", ARROWS)
def test_the_rest_of_a_package_imports_only_what_it_is_installed_with(package: str) -> None:
    assert wrong_imports(ROOT / "packages" / package, below(package)) == {}


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_requires_the_siblings_it_imports_at_its_own_version(package: str) -> None:
    text = (ROOT / "packages" / package / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    required = {requirement for requirement in project["dependencies"] if requirement.startswith("weft-")}
    assert required == {f"weft-{sibling}=={project['version']}" for sibling in ARROWS[package]}


@pytest.mark.parametrize(
    "statement",
    [
        "import weft.train",
        "from weft.train import recipe",
        "from weft import train",
        "from ..train import recipe",
        "from ...train import recipe",
        "def later():\n    from weft.train.recipe.training import Recipe",
        "import importlib\nimportlib.import_module('weft.train.recipe.training')",
    ],
)
def test_an_upward_import_is_seen_in_every_spelling(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "src" / "weft" / "core" / ("units" if "..." in statement else "") / "unit.py"
    path.parent.mkdir(parents=True)
    path.write_text(statement, "utf-8")
    assert imported_parts(path) == {"train"}
