"""What importing and asking for help loads: light parts stay light."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HELP_SECONDS = 0.5
HELP = """
import importlib.metadata, sys
sys.argv = ["weft", "--help"]
(command,) = importlib.metadata.entry_points(group="console_scripts", name="weft")
main = command.load()
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
REPORT = """
import json, time
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([loaded, time.process_time()]), file=sys.stderr)
"""


def run_fresh(program: str) -> tuple[set[str], float, str]:
    """Run a program in a fresh interpreter; return the packages it loaded, its CPU seconds and its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    command = [sys.executable, "-c", f"import sys\n{program}\n{REPORT}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    loaded, seconds = json.loads(done.stderr.strip().splitlines()[-1])
    return set(loaded), seconds, done.stdout


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        ("weft.data", {"torch", "transformers", "mlflow"}),
        ("weft.kernels", {"transformers", "mlflow", "datasets"}),
        ("weft.core", {"mlflow", "datasets"}),
        ("weft.eval", {"mlflow"}),
        ("weft.train", {"torch", "transformers", "mlflow", "datasets"}),
    ],
)
def test_importing_a_package_does_not_load(package: str, unwanted: set[str]) -> None:
    loaded, _, _ = run_fresh(f"import {package}")
    assert not loaded & unwanted


@pytest.mark.parametrize("name", ["attach", "detach", "plan", "load_adapter", "merge", "combine_tasks"])
def test_what_adapts_a_model_loads_torch_and_nothing_of_transformers(name: str) -> None:
    # A model to adapt brings its own part of transformers; all of its model code takes longer to load than torch.
    loaded, _, _ = run_fresh(f"from weft.core import {name}")
    assert "torch" in loaded
    assert not loaded & {"transformers", "huggingface_hub", "scipy", "datasets", "sympy", "mlflow"}


def test_asking_for_help_loads_nothing_heavy() -> None:
    loaded, _, output = run_fresh(HELP)
    assert "demo" in output
    assert not loaded & {"torch", "transformers", "mlflow", "datasets", "peft", "matplotlib", "pandas"}


def test_asking_for_help_is_quick_once_compiled() -> None:
    # CPU seconds, the best of three after one that compiles: the machine may be busy with other work.
    run_fresh(HELP)
    assert min(run_fresh(HELP)[1] for _ in range(3)) < HELP_SECONDS
