from __future__ import annotations

from pathlib import Path

import pytest

from weft.eval.compare import Comparison
from weft.eval.errors import ComparisonError
from weft.eval.tracking import open_run


def log(store: Path, method: str, seed: int, score: float, **tags: str) -> None:
    with open_run(store, "demo", f"{method}-{seed}", {"method": method, "seed": seed}, tags) as run:
        run.log_metrics({"train/loss": 1.0}, step=1)
        run.log_metrics({
            "test/vqa": score, "test/average": score, "test/nlvr/consistency": 3.0, "parameters/trainable": 5,
            "parameters/total": 100, "time/seconds": 7.0, "memory/peak_mb": 64.0,
        })  # fmt: skip


def fail(store: Path) -> None:
    with open_run(store, "demo", "failed") as run:
        run.log_metrics({"test/vqa": 99.0})
        raise ValueError("stop")


def test_runs_of_an_experiment_become_a_table(store: Path) -> None:
    log(store, "single_adapter", 0, 10.0)
    log(store, "single_adapter", 0, 70.0)
    log(store, "single_adapter", 1, 72.0)
    log(store, "zeroed", 0, 40.0, **{"weft.control": "true", "weft.label": "images zeroed"})
    with open_run(store, "demo", "no scores"):
        pass
    with pytest.raises(ValueError, match="stop"):
        fail(store)
    with open_run(store, "empty", "no scores"):
        pass

    comparison = Comparison.from_mlflow(store, "demo")
    adapter, zeroed = comparison.entries
    assert comparison.tasks == ("vqa",)
    assert (adapter.label, adapter.scores["vqa"].mean, adapter.seeds) == ("single adapter", 71.0, (0, 1))
    assert (adapter.percent, adapter.seconds, adapter.memory) == (5.0, 7.0, 64.0)
    assert (zeroed.label, zeroed.control) == ("images zeroed", True)
    assert all(row.run_id for row in comparison.rows)

    with open_run(store, "odd", "odd", {"seed": "None"}) as odd:
        odd.log_metrics({"test/vqa": 1.0})
    with pytest.raises(ComparisonError, match=r"must be an integer, but that of 'odd' .* is 'None'"):
        Comparison.from_mlflow(store, "odd")
    with pytest.raises(ComparisonError, match=r"must be one of the store's .*'demo'.*, but is 'dmo'"):
        Comparison.from_mlflow(store, "dmo")
    with pytest.raises(ComparisonError, match="with metrics named test/<task>, but 'empty'"):
        Comparison.from_mlflow(store, "empty")


def test_a_folder_without_runs_is_refused_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="`store` must hold tracked runs, but there is no database at"):
        Comparison.from_mlflow(tmp_path / "nothing", "demo")
    assert not (tmp_path / "nothing").exists()
