from __future__ import annotations

from pathlib import Path

import pytest

from weft.eval.compare import Comparison, Row, learning_curves, read_curves
from weft.eval.compare.from_mlflow import told_apart
from weft.eval.errors import ComparisonError
from weft.eval.tracking import open_run, store_uri


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["test/vqa", "parameters/trainable"])
def test_a_run_with_a_number_that_is_none_is_named(tmp_path: Path, name: str, value: float) -> None:
    with open_run(tmp_path, "odd", "strange") as run:
        run.log_metrics({"test/vqa": 50.0, "parameters/total": 100, name: value})
    with pytest.raises(
        ComparisonError, match=rf"Metric `{name}` of a run must be a finite number.*'strange'"
    ):
        Comparison.from_mlflow(tmp_path, "odd")


def test_curves_of_a_run_that_diverged_are_drawn_where_they_can_be(tmp_path: Path) -> None:
    with open_run(tmp_path, "odd", "diverged", {"method": "m"}) as run:
        for step, loss in enumerate((2.0, 1.0, float("inf"), float("nan"))):
            run.log_metrics({"train/loss": loss}, step=step)
        run.log_metrics({"test/vqa": 50.0})
    found = Comparison.from_mlflow(tmp_path, "odd")
    curves = read_curves(tmp_path, found)
    assert [step for step, _ in curves["m"]] == [0, 1, 3]
    learning_curves(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


def test_a_folder_without_runs_is_refused_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="`store` must hold tracked runs, but there is no database at"):
        Comparison.from_mlflow(tmp_path / "nothing", "demo")
    assert not (tmp_path / "nothing").exists()


def test_the_address_of_a_database_may_have_options(tmp_path: Path) -> None:
    with open_run(tmp_path, "demo", "run", {"method": "lora"}) as run:
        run.log_metrics({"test/vqa": 70.0})
    assert Comparison.from_mlflow(f"{store_uri(tmp_path)}?timeout=30", "demo").rows[0].scores == {"vqa": 70.0}


def test_runs_in_memory_are_compared_where_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run("sqlite:///:memory:", "in memory", "run", {"method": "lora"}) as run:
        run.log_metrics({"test/vqa": 70.0})
    assert Comparison.from_mlflow("sqlite:///:memory:", "in memory").rows[0].scores == {"vqa": 70.0}
    assert not list(tmp_path.glob("*memory*"))


def test_seeds_are_runs_that_differ_in_the_seed_alone() -> None:
    def run(score: float, seed: int, **params: str) -> tuple[Row, dict[str, str]]:
        given = {"method": "lora", "seed": str(seed), **params}
        return Row("lora", {"vqa": score}, label="LoRA", seed=seed), given

    runs = [
        run(50.0, 0, **{"training.steps": "60", "data.vqa.train": "9 records, sha256 aa"}),
        run(52.0, 1, **{"training.steps": "60", "data.vqa.train": "9 records, sha256 bb"}),
        run(10.0, 0, **{"training.steps": "1", "data.vqa.train": "9 records, sha256 aa"}),
        run(51.0, 0, **{"training.steps": "60", "data.vqa.train": "9 records, sha256 aa"}),
    ]
    rows = told_apart([row for row, _ in runs], [params for _, params in runs])
    entries = {entry.label: (entry.scores["vqa"].mean, entry.seeds) for entry in Comparison(rows).entries}
    assert entries == {
        "LoRA (training.steps 60)": (51.5, (0, 1)),
        "LoRA (training.steps 60, 1 before the last)": (50.0, (0,)),
        "LoRA (training.steps 1)": (10.0, (0,)),
    }


def test_runs_on_other_data_are_entries_of_their_own() -> None:
    rows = [Row("lora", {"vqa": score}, seed=0) for score in (1.0, 2.0)]
    params = [{"data.vqa.train": f"9 records, sha256 {digest}"} for digest in ("aa", "bb")]
    told = told_apart(rows, params)
    assert len(Comparison(told).entries) == 2
    words = [f"lora (data.vqa.train 9 records, sha256 {digest})" for digest in ("aa", "bb")]
    assert [row.method for row in told] == words


def test_runs_that_differ_in_nothing_else_keep_their_name() -> None:
    rows = [Row("lora", {"vqa": 1.0}, seed=seed) for seed in (0, 1)]
    assert [row.method for row in told_apart(rows, [{"seed": "0"}, {"seed": "1"}])] == ["lora", "lora"]
