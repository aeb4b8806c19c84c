"""Only what weft made is ever removed, and only one process at a time writes a run."""

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.data.errors import InUseError
from weft.train.errors import RunError
from weft.train.output import folders
from weft.train.output.folders import RUN_MARKER, claimed, make_run_folder
from weft.train.recipe.loading import load_recipe
from weft.train.runs.demo import _clear
from weft.train.runs.run import execute, prepare_folder
from weft.train.runs.sweep import read_axes, run_sweep

REPEATS = 20


def prepared(values: dict[str, Any], *changes: str, **how: bool) -> Path:
    recipe = load_recipe(values, list(changes))
    with ExitStack() as claims:
        prepare_folder(recipe, dict, claims, **how)
    return recipe.folder


def test_a_run_folder_carries_the_marker_and_overwriting_makes_it_anew(values: dict[str, Any]) -> None:
    folder = prepared(values)
    (folder / "old").touch()
    assert (folder / RUN_MARKER).is_file()
    with pytest.raises(RunError, match="`name` must be new"):
        prepared(values)
    prepared(values, "seed=3", overwrite=True)
    assert not (folder / "old").exists()
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["seed"] == 3
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def _no_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")


def _tracking_store(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "mlflow.db").write_text("all runs")


def _linked_run(folder: Path) -> None:
    make_run_folder(folder.with_name("other"), {})
    folder.symlink_to(folder.with_name("other"))


def _linked_marker(folder: Path) -> None:
    make_run_folder(folder.with_name("other"), {})
    folder.mkdir()
    (folder / RUN_MARKER).symlink_to(folder.with_name("other") / RUN_MARKER)


def _run_with_a_store(folder: Path) -> None:
    make_run_folder(folder, {})
    (folder / "store").mkdir()
    (folder / "store" / "mlflow.db").write_text("all runs")


def _run_with_a_run(folder: Path) -> None:
    make_run_folder(folder, {})
    make_run_folder(folder / "inner", {})


@pytest.mark.parametrize(
    "make", [_no_run, _tracking_store, _linked_run, _linked_marker, _run_with_a_store, _run_with_a_run]
)
def test_what_weft_did_not_make_alone_is_never_removed(
    values: dict[str, Any], make: Callable[[Path], None]
) -> None:
    folder = Path(values["output"]) / "tiny"
    folder.parent.mkdir()
    make(folder)
    before = sorted(str(path) for path in folder.parent.rglob("*"))
    with pytest.raises(RunError, match="must be a folder that weft made, and made alone, to be removed, but"):
        prepared(values, overwrite=True)
    assert sorted(str(path) for path in folder.parent.rglob("*")) == before


def test_the_current_folder_is_never_removed(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepared(values)
    (folder / "notes").mkdir()
    monkeypatch.chdir(folder / "notes")
    with pytest.raises(RunError, match="holds the current folder"):
        prepared(values, overwrite=True)
    assert (folder / "notes").is_dir()


def test_a_tracking_store_never_lies_in_the_folder_of_a_run(values: dict[str, Any]) -> None:
    values["tracking"] = {"enabled": True}
    with pytest.raises(RunError, match=r"`tracking\.store` must lie outside of the run's own folder"):
        prepared(values, "name=mlflow")
    assert not Path(values["output"]).exists()


def test_an_earlier_run_is_moved_aside_before_it_is_removed(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(values)
    (folder / "result.json").touch()
    found: list[bool] = []

    def killed(path: Path, **_: Any) -> None:
        found.append((folder / "recipe.yaml").is_file() and not (folder / "result.json").exists())

    with monkeypatch.context() as patch:
        patch.setattr(folders.shutil, "rmtree", killed)
        prepared(values, overwrite=True)
    assert found == [True]
    assert len(list(folder.parent.glob(".tiny.removed-*"))) == 1
    prepared(values, overwrite=True)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_run_that_cannot_be_made_leaves_the_earlier_one(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(values)
    (folder / "result.json").touch()
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if ".new-" in path.name:
            raise OSError("no room")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(RunError, match="cannot be made: no room"):
        prepared(values, overwrite=True)
    assert (folder / "result.json").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_demo_clears_a_folder_of_its_own_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _clear(tmp_path / "empty")
    (tmp_path / "empty" / "run").mkdir()
    _clear(tmp_path / "empty")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == [folders.DEMO_MARKER]
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(RunError, match="is no folder"):
        _clear(tmp_path / "link")


def _races(values: dict[str, Any], seed: int, ready: Any, told: Any, outcomes: Any) -> None:
    recipe = load_recipe(values, [f"seed={seed}"])
    ready.wait()
    try:
        with ExitStack() as claims:
            prepare_folder(recipe, dict, claims, overwrite=True)
            told.wait(60)
            kept = yaml.safe_load((recipe.folder / "recipe.yaml").read_text())["seed"]
            outcomes.put(("ran", kept == seed))
    except InUseError as error:
        outcomes.put(("told", str(error)))
        told.set()


def test_of_two_runs_of_one_name_one_runs_and_the_other_is_told_at_once(values: dict[str, Any]) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(REPEATS):
        told_one, outcomes = context.Event(), context.Queue()
        shared = (context.Barrier(2), told_one, outcomes)
        both = [context.Process(target=_races, args=(values, seed, *shared)) for seed in (1, 2)]
        for process in both:
            process.start()
        ran, told = sorted(outcomes.get(timeout=60) for _ in both)
        for process in both:
            process.join()
        assert ran == ("ran", True)
        assert told[1].startswith("`name` (")
        assert f"in use by process {both[0].pid} on" in told[1] or f"process {both[1].pid} on" in told[1]
        assert "take name=... for another run" in told[1]


def test_auto_resume_decides_when_the_folder_is_its_own(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, asked = load_recipe(values), []
    monkeypatch.setattr(
        "weft.train.runs.run.how_to_start", lambda folder: asked.append(folder) or (False, False)
    )
    with claimed(recipe.folder, "name", otherwise="x"), ExitStack() as claims, pytest.raises(InUseError):
        prepare_folder(recipe, dict, claims, auto_resume=True)
    assert asked == []


@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_the_lock_of_a_run_that_is_gone_is_recognised(values: dict[str, Any], host: str) -> None:
    folder = Path(values["output"]) / "tiny"
    folder.parent.mkdir()
    lock = folder.with_name(".tiny.lock")
    lock.write_text(json.dumps({"host": host, "pid": 2**22 + 1, "since": 0.0}))
    os.utime(lock, (1, 1))
    assert prepared(values) == folder
    assert not lock.exists()


def test_a_command_that_is_refused_leaves_nothing(values: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="needs a complete checkpoint"):
        prepared(values, resume=True)
    assert not Path(values["output"]).exists()


def test_of_two_sweeps_of_one_name_the_second_is_told(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    sweep = Path(values["output"]) / "tiny.sweep"
    with claimed(sweep, "name", otherwise="x"), pytest.raises(InUseError, match=r"`name` \(.*tiny\.sweep\)"):
        run_sweep(str(path), [], read_axes(["seed=0"]))


@pytest.mark.slow
def test_a_running_train_refuses_a_second_one(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    command = [sys.executable, "-m", "weft.train", str(path), "training.steps=20000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        folder = Path(values["output"]) / "tiny"
        end = time.monotonic() + 120
        while not (folder / "plan.json").exists() and time.monotonic() < end:
            time.sleep(0.2)
        for _ in range(REPEATS):
            with pytest.raises(InUseError, match=f"in use by process {first.pid} on"):
                execute(load_recipe(values), overwrite=True)
        assert first.poll() is None
        first.kill()
    assert execute(load_recipe(values), overwrite=True).folder == folder
    shutil.rmtree(folder)
