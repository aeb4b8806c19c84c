"""Run folders of somebody else: what cannot be read is named, and nothing in them is run."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from weft.core.errors import CheckpointError
from weft.train.engine.checkpoints import MANIFEST, is_complete, seal
from weft.train.errors import RecipeError, RunError
from weft.train.output.run_files import as_written, read_id, read_json
from weft.train.recipe.loading import load_recipe
from weft.train.runs.exchange import import_adapter
from weft.train.runs.origin import other_recipe, read_origin
from weft.train.runs.run import execute


class Runs:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def stopped(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose run has a checkpoint, and is not scored yet."""
    values["tasks"].pop("nlvr")
    values["training"] |= {"steps": 2, "save_every": 1, "keep": 1}
    folder = execute(load_recipe(values)).folder
    shutil.rmtree(folder / "adapter")
    (folder / "result.json").unlink()
    return values


def replace(values: dict[str, Any], name: str, content: bytes) -> None:
    """Put other content into a checkpoint, which stays whole by its manifest."""
    checkpoint = Path(values["output"]) / "tiny" / "checkpoints" / "checkpoint-2"
    (checkpoint / name).write_bytes(content)
    (checkpoint / MANIFEST).unlink()
    seal(checkpoint.rename(checkpoint.with_name("changed")), checkpoint)
    assert is_complete(checkpoint)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seconds.json", b"{}"),
        ("validated.json", b"3"),
        ("validated.json", b'["a", 0]'),
        ("trainer_state.json", b"\xff"),
        ("trainer_state.json", b"[]"),
        ("trainer_state.json", b'{"global_step": "1"}'),
        ("trainer_state.json", b'{"global_step": 1, "unknown": 1}'),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_named_before_a_step(
    stopped: dict[str, Any], name: str, content: bytes
) -> None:
    replace(stopped, name, content)
    with pytest.raises(RunError, match=r"checkpoint-2.* must be as weft wrote it, but cannot be read: .*"):
        execute(load_recipe(stopped), resume=True)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_no_pickle_of_a_checkpoint_is_run(stopped: dict[str, Any], name: str, tmp_path: Path) -> None:
    state = Path(stopped["output"]) / "tiny" / "checkpoints" / "checkpoint-2" / "trainer_state.json"
    replace(
        stopped, "trainer_state.json", json.dumps(json.loads(state.read_text()) | {"global_step": 1}).encode()
    )
    replace(stopped, name, pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(
        RunError, match=r"checkpoint-2 must be as weft wrote it.*--resume then takes the checkpoint"
    ):
        execute(load_recipe(stopped), resume=True)
    assert not (tmp_path / "ran").exists()


def test_a_manifest_that_is_nested_too_deep_is_none(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("[" * 5000)
    assert not is_complete(tmp_path)


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"[" * 5000])
def test_a_note_of_a_run_that_is_no_object_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "origin.json").write_bytes(text)
    with pytest.raises(RunError, match=r"origin\.json must be as weft wrote it, but cannot be read"):
        read_origin(tmp_path)


def test_the_recipe_of_a_run_that_cannot_be_read_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff")
    with pytest.raises(RecipeError, match=r"recipe\.yaml must be YAML"):
        other_recipe(tmp_path, load_recipe(values))


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"null", b"{}"])
def test_the_settings_of_a_foreign_adapter_that_cannot_be_read_are_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "adapter_config.json").write_bytes(text)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"`SOURCE` must hold|`folder` must hold"):
        import_adapter(tmp_path, tmp_path / "out", backbone="miniature")


def test_errors_of_weft_and_lack_of_memory_say_nothing_of_a_file(tmp_path: Path) -> None:
    for error in (RunError("x"), CheckpointError("x"), MemoryError("x")):
        with pytest.raises(type(error), match=r"^x$"), as_written(tmp_path):
            raise error
    with pytest.raises(
        RunError, match=r"a\.json must be as weft wrote it, but cannot be read: FileNotFoundError"
    ):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"\xff", b"../x", b"", b"a b"])
def test_an_id_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "id").write_bytes(content)
    with pytest.raises(
        RunError, match=r"id must be as weft wrote it, but cannot be read: .* Remove it to start"
    ):
        read_id(tmp_path / "id")
    (tmp_path / "id").write_text("0af\n")
    assert read_id(tmp_path / "id") == "0af"
