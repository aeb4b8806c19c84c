"""The page about one's own model and data, block by block: what it shows is what a user gets."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.core.testing.processed import tiny
from weft.train.cli import main
from weft.train.recipe.loading import load_recipe
from weft.train.testing.own_data import write_own_data

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_models.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def run_here() -> list[str]:
    """The recipes that the commands of the page run; its other blocks are of data that are not described."""
    return [block for block in blocks("yaml") if block.startswith("name: my_")]


def test_the_other_recipes_and_parts_of_recipes_have_keys_that_recipes_have() -> None:
    training = {"steps": 1, "learning_rate": 1e-3}
    others = [yaml.safe_load(block) for block in blocks("yaml") if block not in run_here()]
    assert len(others) == 2
    for part in others:
        tasks = {name: {"data": {"name": "image_folder"}} for name in part["backbone"].get("heads", ())}
        load_recipe({"name": "part", "tasks": tasks, "training": training, **part})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the page describes it: a model, pictures, tables, the recipe."""
    folder = tmp_path_factory.mktemp("own")
    tiny("llava").save(folder / "my-model")
    data = write_own_data(folder / "my-data")
    for table, name in (("vqa", "questions"), ("captions", "captions"), ("talks", "talks")):
        lines = (data / f"{table}.jsonl").read_text().splitlines(keepends=True)
        (data / f"{name}-train.jsonl").write_text("".join(lines[:16]))
        (data / f"{name}-test.jsonl").write_text("".join(lines[16:]))
        (data / f"{table}.jsonl").unlink()
    for name, recipe in zip(("my_recipe", "my_talks"), run_here(), strict=True):
        (folder / f"{name}.yaml").write_text(recipe)
    return folder


def test_the_lines_of_tables_are_as_they_are_shown(place: Path) -> None:
    for line, name in zip(blocks("json"), ("questions", "captions", "talks"), strict=True):
        written = (place / "my-data" / f"{name}-train.jsonl").read_text().splitlines()[1]
        assert json.loads(line).keys() == json.loads(written).keys()


def test_the_commands_do_what_they_say(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    said = {}
    for block in blocks("console"):
        for line in block.splitlines():
            command, *words = shlex.split(line.removeprefix("$ "))
            assert command == "weft"
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(words)
            said[" ".join(words)] = capsys.readouterr()
            assert not ended.value.code, (words, said[" ".join(words)])
    tried = said["train my_recipe.yaml --dry-run"].out
    (line,) = blocks("text")[0].splitlines()
    # Which shape comes first is drawn.
    pattern = re.escape(line).replace("circle", "[a-z]+").partition("\\ \\->")[0]
    assert re.search(pattern, tried), tried
    assert "-> 're' | 'd' | '</s>'" in tried
    assert "other run" in said["compare"].out


def test_the_table_of_models_is_what_the_contract_finds() -> None:
    found: Any = importlib.util.spec_from_file_location("model_table", ROOT / "scripts" / "model_table.py")
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    assert script.PLACE.search(PAGE).group() == script.table(), "run `python scripts/model_table.py`"
