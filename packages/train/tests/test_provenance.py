import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from weft.eval.compare import Comparison
from weft.eval.tracking.store import client
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.runs import provenance
from weft.train.runs.provenance import source_tags
from weft.train.runs.run import execute


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("a: 1\n")
    own = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init"], ["add", "."], [*own, "commit", "-m", "Add a recipe"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


def test_the_commit_is_told_and_whether_files_changed_since(repository: Path) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()
    tags = source_tags(repository)
    assert (tags["mlflow.source.git.commit"], tags["weft.git.changed"]) == (commit, "false")
    (repository / "recipe.yaml").write_text("a: 2\n")
    assert source_tags(repository)["weft.git.changed"] == "true"


def test_peak_memory_is_known_where_python_has_no_resource_module(monkeypatch: pytest.MonkeyPatch) -> None:
    used = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=3 * 2**20))
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil, "Process", lambda: used)
    assert importlib.reload(provenance).peak_memory_mb() == 3


def test_outside_of_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Temporary folders may lie within somebody's repository.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert source_tags(tmp_path).keys() == {
        "mlflow.user",
        "mlflow.source.name",
        "mlflow.source.type",
        "weft.version",
    }


def test_a_tracked_run_tells_its_commit_its_data_and_how_busy_the_machine_was(
    values: dict[str, Any], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    store = f"sqlite:///{repository / 'runs.db'}"
    values["tracking"] = {"enabled": True, "experiment": "told", "store": store, "model": False}
    recipe = load_recipe(values)
    execute(recipe)
    found = client(store)
    (run,) = found.search_runs([found.get_experiment_by_name("told").experiment_id])
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    for name, data in load_tasks(recipe).items():
        for role, records in data.splits.items():
            said = run.data.params[f"data.{name}.{role}"]
            assert said == f"{len(records)} records, sha256 {records.fingerprint()}"
    history = found.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert sorted(point.step for point in history) == [2, 4, 6]
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_two_ranks_of_one_method_under_one_label_are_two_entries(values: dict[str, Any], store: Path) -> None:
    values["tracking"] = {"enabled": True, "experiment": "ranks", "store": str(store), "model": False}
    values["training"] |= {"steps": 1}
    for place, rank in enumerate((2, 4, 4)):
        method = {"method": "lora", "rank": rank, "sharing": "multiple"}
        own = {"name": f"run-{place}", "label": "LoRA", "method": method, "seed": place}
        execute(load_recipe(values | own))
    entries = {entry.label: entry.seeds for entry in Comparison.from_mlflow(store, "ranks").entries}
    assert entries == {"LoRA (method.rank 2)": (0,), "LoRA (method.rank 4)": (1, 2)}
