"""Plants faults in a copy of this repository, one at a time, and tells which test catches each.

``python scripts/plant_faults.py`` copies the tree, runs the tests that are to catch something once without a fault, and
then once with each fault of ``planted_faults.yaml``; it prints a row for each and ends with 1 unless all were caught.
It needs what the tests need: the environment of ``nox -s tests``, or one of your own. ``--tree`` plants in another
checkout, to compare what caught a fault before a change of the tests and after it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
PACKAGES = ("kernels", "core", "data", "eval", "train")
COPIED = ("packages", "tests", "pyproject.toml", "conftest.py")
CAUGHT, PASSED = 1, 0  # exit codes of pytest
LONGEST_SECONDS = 900


@dataclass(frozen=True)
class Fault:
    """One replacement in one source file, and pytest's words for the tests that are to notice it."""

    package: str
    fault: str
    file: str
    find: str
    plant: str
    tests: str

    def source(self, tree: Path) -> Path:
        """The source file in a tree."""
        return tree / "packages" / self.package / "src" / "weft" / self.package / self.file

    def words(self) -> list[str]:
        """Words for pytest, with paths below the root."""
        folder = f"packages/{self.package}/tests"
        return [f"{folder}/{word}" if ".py" in word else word for word in shlex.split(self.tests)]


def main() -> None:
    """Plant every fault that is asked for, and print what became of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tree", type=Path, default=HERE.parent, help="checkout to copy; this one by default"
    )
    parser.add_argument(
        "--only", default="", help="plant only faults whose package or description holds this"
    )
    parser.add_argument("--no-check", action="store_true", help="the tests are known to pass without a fault")
    options = parser.parse_args()
    listed = yaml.safe_load((HERE / "planted_faults.yaml").read_text("utf-8"))
    faults = [Fault(package, **entry) for package in PACKAGES for entry in listed[package]]
    faults = [fault for fault in faults if options.only in f"{fault.package}: {fault.fault}"]
    with tempfile.TemporaryDirectory(prefix="weft-faults-") as folder:
        tree = copy_of(options.tree.resolve(), Path(folder) / "tree")
        if not options.no_check:
            for fault in {(fault.package, fault.tests): fault for fault in faults}.values():
                code, output = run_tests(fault, tree)
                if code != PASSED:
                    sys.exit(f"WITHOUT A FAULT, {fault.tests} OF {fault.package} FAILS:\n{output[-2000:]}")
        verdicts = [report(fault, verdict_of(fault, tree, number)) for number, fault in enumerate(faults)]
    caught = sum(verdict.startswith("caught") for verdict in verdicts)
    print(f"{caught} of {len(faults)} faults were caught.")
    sys.exit(caught != len(faults))


def copy_of(source: Path, target: Path) -> Path:
    """Copy what the tests need, without caches; the checkout itself is never changed."""
    target.mkdir()
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif (source / name).exists():
            shutil.copy(source / name, target / name)
    if (source.parent / "shared").is_dir():  # real files, which tests look for beside the checkout
        (target.parent / "shared").symlink_to(source.parent / "shared")
    return target


def verdict_of(fault: Fault, tree: Path, number: int) -> str:
    """Plant one fault, run its tests, and take it out again.

    Args:
        fault: The fault.
        tree: Copy of a checkout.
        number: Of this fault; it dates the planted file, so that no cache of compiled code is taken for it.

    Returns:
        "caught by TEST", "ESCAPED", or a complaint in capitals that says why the fault was not tried.
    """
    source = fault.source(tree)
    text = source.read_text("utf-8") if source.is_file() else ""
    if text.count(fault.find) != 1:
        return f"ANCHOR GONE: {fault.find!r} occurs {text.count(fault.find)} times; mend planted_faults.yaml"
    source.write_text(text.replace(fault.find, fault.plant), "utf-8")
    os.utime(source, (1_000_000_000 + number,) * 2)
    try:
        code, output = run_tests(fault, tree)
    finally:
        source.write_text(text, "utf-8")
    if code == PASSED:
        return "ESCAPED"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if code != CAUGHT or failed is None:
        return f"NOT TRIED: pytest ended with {code}: {output.strip()[-300:]}"
    return f"caught by {failed.group(1).partition('/tests/')[2]}"


def run_tests(fault: Fault, tree: Path) -> tuple[int, str]:
    """Run the tests of a fault up to the first failure; return pytest's exit code and what it printed."""
    paths = os.pathsep.join(str(tree / "packages" / package / "src") for package in PACKAGES)
    environment = os.environ | {
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *fault.words()]
    done = subprocess.run(  # noqa: S603  (the tests of a copy of this tree, without a shell)
        [sys.executable, "-m", "pytest", *words], cwd=tree, env=environment, capture_output=True, text=True,
        timeout=LONGEST_SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def report(fault: Fault, verdict: str) -> str:
    """Print the row of one fault as soon as it is known, and return the verdict."""
    print(f"{fault.package:8} {fault.fault:55} {verdict}", flush=True)
    return verdict


if __name__ == "__main__":
    main()
