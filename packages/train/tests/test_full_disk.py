"""A disk that becomes full in mid-run: one message, complete checkpoints, and a run that resumes once there is room."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from weft.train.cli import main
from weft.train.engine.checkpoints import is_complete
from weft.train.engine.interruption import disk_may_fill, is_full
from weft.train.errors import RunError
from weft.train.output.progress import Advance, Progress
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights

ROOM = 32 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes Linux and its root")
    path = tmp_path / "disk"
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "weft-full-disk", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount a small disk: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


class Fills(Progress):
    """Takes all room that is left when so much of some work is done."""

    def __init__(self, disk: Path, work: str, amount: int) -> None:
        self.disk, self.work, self.amount = disk, work, amount

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        def advance(done: int) -> None:
            if title == self.work and done == self.amount:
                fill(self.disk / "others")

        yield advance


def fill(file: Path) -> None:
    room = shutil.disk_usage(file.parent).free
    with file.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, room)
    assert shutil.disk_usage(file.parent).free == 0


def command(*words: str) -> Any:
    """The exit code of `weft` with these words."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


# Metrics go to the spool for a while: what is left of its last block takes a dozen events.
LOGGED = ["training.steps=40", "training.save_every=20", "training.log_every=1", "tracking.model=false"]


@pytest.mark.parametrize(
    ("work", "amount", "changes"),
    [
        pytest.param("train tiny", 3, [], id="checkpoint"),
        pytest.param(
            "train tiny", 21, [*LOGGED, "tracking.enabled=true"], id="metrics", marks=pytest.mark.slow
        ),
        pytest.param(
            "train tiny",
            5,
            ["training.evaluate_every=5", "training.save_every=4", "training.steps=8"],
            id="best",
            marks=pytest.mark.slow,
        ),
        pytest.param("test nlvr", 12, [], id="result", marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_fills_ends_the_run_which_goes_on_when_there_is_room(
    values: dict[str, Any],
    finished: Any,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    work: str,
    amount: int,
    changes: list[str],
) -> None:
    values["training"] |= {"save_every": 2}
    whole = finished(load_recipe(values, [*changes, "tracking.enabled=false"]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values | {"output": str(disk)}, sort_keys=False))
    monkeypatch.setattr("weft.train.cli.console.progress", lambda: Fills(disk, work, amount))
    assert command("train", str(recipe), *changes) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(
        "weft: The disk that holds `output` must have room for checkpoints and metrics"
    )
    folder = disk / "tiny"
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    newest = max(kept, key=lambda name: int(name.split("-")[1]))
    assert said[-1].endswith(f"Free some space. --resume resumes it from {newest}.")
    assert all(name.startswith("checkpoint-") for name in kept)
    assert all(is_complete(folder / "checkpoints" / name) for name in kept)
    assert not (folder / "result.json").exists()

    (disk / "others").unlink()
    monkeypatch.setattr("weft.train.cli.console.progress", Progress)
    assert command("train", str(recipe), *changes, "--resume") == 0
    one, two = adapter_weights(whole.folder), adapter_weights(folder)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert json.loads((folder / "result.json").read_text())["scores"] == whole.scores


def test_a_run_without_a_checkpoint_says_to_start_again(values, tmp_path, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("weft.train.engine.trainer.seal", full)
        with pytest.raises(RunError, match=r"There is no checkpoint yet: --overwrite starts again"):
            execute(load_recipe(values, ["training.save_every=2"]))
        patch.setattr(Path, "write_text", full)
        with pytest.raises(RunError, match=r"must be a folder that can be written.*No space left"):
            execute(load_recipe(values, ["name=other"]))
    assert not (Path(values["output"]) / "tiny" / "checkpoints" / ".saving-2").exists()
    assert not (Path(values["output"]) / "other").exists()


def test_a_full_disk_is_told_from_other_errors(tmp_path, monkeypatch):
    assert is_full(OSError(errno.ENOSPC, "x"), tmp_path)
    assert is_full(OSError(errno.EDQUOT, "x"), tmp_path)
    assert not is_full(OSError(errno.EACCES, "x"), tmp_path)
    torch_says = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    assert not is_full(torch_says, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert is_full(torch_says, tmp_path)
    assert not is_full(RuntimeError("an error of its own"), tmp_path)
    outer = ValueError("outer")
    outer.__cause__ = OSError(errno.ENOSPC, "x")
    assert is_full(outer, tmp_path)
    with pytest.raises(ZeroDivisionError), disk_may_fill(tmp_path):
        raise ZeroDivisionError
