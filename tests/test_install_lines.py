"""Nothing that weft says makes pip ask an index for a name of ours, as whoever offers such a package is not us."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "core", "data", "eval", "train")
INSTALL = "python -m pip install ./packages/kernels ./packages/core ./packages/data ./packages/eval ./packages/train"
ASKS = re.compile(r"pip install[^\n`]*[\s'\"]weft-(?:kernels|core|data|eval|train)\b")
LOCAL = re.compile(r"pip install[^\n`]*packages/(\w+)[^\n`]*(?:\\\n[^\n`]*)*")


def texts() -> dict[str, str]:
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    found += [*ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")]
    found += [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("packages/*/src/**/*.yaml")]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in found}


def test_no_message_and_no_page_asks_an_index_for_a_package_of_ours() -> None:
    assert ASKS.search("Install it with: pip install 'weft-data[video]'")
    assert {name for name, text in texts().items() if ASKS.search(text)} == set()


def test_lines_that_install_from_here_name_all_packages_that_need_one_another() -> None:
    for name, text in texts().items():
        for line in LOCAL.finditer(text):
            named = set(re.findall(r"packages/(\w+)", line.group()))
            needed = {other for package in named for other in siblings(package)}
            assert needed <= named, f"{name}: {line.group()} lets pip seek {sorted(needed - named)}"


def siblings(package: str) -> set[str]:
    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text("utf-8"))["project"]
    return {
        other
        for other in PACKAGES
        if any(pin.startswith(f"weft-{other}==") for pin in project["dependencies"])
    }


def test_the_one_safe_line_and_the_names_stand_where_they_are_sought() -> None:
    security = (ROOT / "SECURITY.md").read_text("utf-8")
    assert INSTALL in security
    assert all(f"`weft-{package}`" in security for package in PACKAGES)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "(SECURITY.md)" in readme
    assert INSTALL in readme
