"""Measure: `python -m benchmarks.run`, or `nox -s bench`, which also makes the environments that it needs.

Without arguments all cases are measured, each into a file of `results`; then the page, the table of the README and the
plots are written from these files. `--only 'alone_clip_*' imports` measures some, `--list` names all. `--quick` shows
within minutes that everything runs: one round, smaller cases where there are any, files in `build/bench`, and no page.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure.options import Measure, Options
from benchmarks.measure.results import RESULTS, write
from benchmarks.measure.sides import ROOT

QUICK = ROOT / "build" / "bench"
SINGLE = ("vlm_step", "stored_vision", "many_adapters")
SEVERAL = ("peers", "packaged")


def cases() -> dict[str, Measure]:
    """Every case by its name."""
    found: dict[str, Measure] = {}
    for module in SEVERAL:
        found |= importlib.import_module(f"benchmarks.{module}").CASES
    return found | {name: importlib.import_module(f"benchmarks.{name}").measure for name in SINGLE}


def chosen(every: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Names that match a pattern; every pattern must match one.

    Raises:
        SystemExit: For a pattern that matches none.
    """
    for pattern in patterns:
        if not fnmatch.filter(every, pattern):
            sys.exit(f"`--only` must match a case, but {pattern!r} matches none of {', '.join(every)}.")
    return [name for name in every if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def main() -> None:
    """Measure, and write what follows from it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="cases, by name or pattern"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--quick", action="store_true", help="show that all runs; nothing is published")
    parser.add_argument("--rounds", type=int, help="turns of each side (15)")
    parser.add_argument("--adapters", help="Python of an environment that has adapters")
    parser.add_argument(
        "--trl", default=sys.executable, help="Python of an environment that has TRL and peft"
    )
    parser.add_argument("--out", type=Path, help="folder for results; then no page is written")
    given = parser.parse_args()
    every = cases()
    names = chosen(list(every), given.only)
    if given.list:
        sys.stdout.write("\n".join(names) + "\n")
        return
    rounds = given.rounds or (1 if given.quick else 15)
    options = Options(rounds=rounds, quick=given.quick, adapters=given.adapters, trl=given.trl)
    folder = given.out or (QUICK if given.quick else RESULTS)
    for name in names:
        start = time.perf_counter()
        path = write(name, every[name](options), folder)
        sys.stdout.write(f"{name}: {time.perf_counter() - start:.0f} s, {path}\n")
        sys.stdout.flush()
    if folder == RESULTS:
        from benchmarks import plots, table

        plots.main()
        table.main()


if __name__ == "__main__":
    main()
