import json
from pathlib import Path

import pytest

from weft.train.engine.checkpoints import (
    MANIFEST,
    is_complete,
    latest_checkpoint,
    require_resumable,
    rotate,
    seal,
)
from weft.train.errors import RunError


def checkpoint(folder: Path, step: int) -> Path:
    partial = folder / f".saving-{step}"
    (partial / "deep").mkdir(parents=True)
    (partial / "weights").write_bytes(b"w" * step)
    (partial / "deep" / "state").write_text(str(step))
    seal(partial, folder / f"checkpoint-{step}")
    return folder / f"checkpoint-{step}"


def test_a_sealed_folder_is_whole_and_the_partial_one_is_gone(tmp_path):
    made = checkpoint(tmp_path, 5)
    assert is_complete(made)
    assert set(json.loads((made / MANIFEST).read_text())) == {"weights", "deep/state"}
    assert not (tmp_path / ".saving-5").exists()


@pytest.mark.parametrize("harm", ["truncate", "change", "remove", "no manifest", "broken manifest"])
def test_resume_passes_over_a_damaged_checkpoint(tmp_path, harm):
    good, bad = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    if harm == "truncate":
        (bad / "weights").write_bytes(b"w")
    elif harm == "change":
        (bad / "weights").write_bytes(b"x" * 10)
    elif harm == "remove":
        (bad / "deep" / "state").unlink()
    elif harm == "no manifest":
        (bad / MANIFEST).unlink()
    else:
        (bad / MANIFEST).write_text("{")
    assert not is_complete(bad)
    assert latest_checkpoint(tmp_path) == good


def test_steps_are_compared_as_numbers(tmp_path):
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 100)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_rotation_keeps_the_newest_and_removes_what_was_interrupted(tmp_path):
    for step in (1, 2, 3):
        checkpoint(tmp_path, step)
    (tmp_path / ".saving-4").mkdir()
    rotate(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]


def test_sealing_replaces_a_folder_of_the_same_name(tmp_path):
    checkpoint(tmp_path, 3)
    (tmp_path / "checkpoint-3" / "weights").write_bytes(b"damaged")
    assert is_complete(checkpoint(tmp_path, 3))


def test_nothing_to_resume_from_is_said(tmp_path):
    with pytest.raises(RunError, match="no checkpoint at all"):
        require_resumable(tmp_path)
    (checkpoint(tmp_path, 7) / MANIFEST).unlink()
    with pytest.raises(RunError, match="there is checkpoint-7"):
        require_resumable(tmp_path)
