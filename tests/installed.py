"""Check an environment that holds wheels only: the named packages are there, whole, and no others.

Run by the nox session ``isolated``:
``python tests/installed.py --present kernels core --absent data eval train``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "packages"


def faults(present: list[str], absent: list[str]) -> list[str]:
    """Return what is wrong with the packages of this environment, one sentence each."""
    found = []
    for name in present:
        installed = Path(importlib.import_module(f"weft.{name}").__file__ or "").parent
        if not installed.is_relative_to(sys.prefix):
            found.append(f"weft.{name} comes from {installed}, not from the environment {sys.prefix}.")
        for missing in sorted(files_of(SOURCES / name / "src" / "weft" / name) - files_of(installed)):
            found.append(f"The wheel of weft-{name} lacks {missing}.")
    for name in absent:
        if importlib.util.find_spec(f"weft.{name}") is not None:
            found.append(f"weft.{name} is importable, though nothing that was installed needs it.")
    return found


def files_of(folder: Path) -> set[str]:
    """Return the files of a package below its folder, data and recipes included, bytecode not."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(folder).as_posix() for path in files}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--present", nargs="*", default=[])
    parser.add_argument("--absent", nargs="*", default=[])
    arguments = parser.parse_args()
    sys.exit("\n".join(faults(arguments.present, arguments.absent)) or 0)
