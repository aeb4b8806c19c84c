"""What a run is made of is noted at its start: records, pictures, stored features, and the files its recipe names."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig

from weft.data import load_dataset
from weft.data.features.index import FeatureKey
from weft.data.features.write import write_features
from weft.data.shards.convert import convert
from weft.data.sources.handles import close_handles
from weft.data.testing import image_bytes
from weft.train.backbones.saved import MINIATURE
from weft.train.errors import RunError
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.origin import ORIGIN, origin_of, read_origin
from weft.train.runs.run import execute

ROWS = 8


def write_pictures(folder: Path, first: str = "navy") -> None:
    """Pictures of one size each, in pixels and in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(ROWS):
        Image.new("RGB", (30, 20), first if k == 0 else "olive").save(folder / f"{k}.bmp")


def write_rows(root: Path) -> None:
    rows = [
        {"id": str(k), "image": f"{k}.bmp", "question": "what color", "answers": ["red"] * 10}
        for k in range(ROWS)
    ]
    for split in ("train", "test"):
        (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


@pytest.fixture
def own(values: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The recipe on pictures of one's own."""
    write_pictures(tmp_path / "own")
    write_rows(tmp_path / "own")
    data = {"name": "table", "root": str(tmp_path / "own"), "options": {"record": "image_qa"}}
    values["tasks"] = {"vqa": {"prompt": "vqa: ", "metric": "vqa", "max_new_tokens": 3, "data": data}}
    values["training"] |= {"steps": 2, "save_every": 1}
    return values


def noted(recipe: Recipe) -> dict[str, str]:
    return origin_of(recipe, load_tasks(recipe))


def interrupted(values: dict[str, Any]) -> Recipe:
    """A run that a complete checkpoint is left of."""
    recipe = load_recipe(values)
    folder = execute(recipe).folder
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-2")
    (folder / "result.json").unlink()
    return recipe


def test_a_run_goes_on_only_with_the_pictures_it_was_started_with(own, tmp_path):
    recipe = interrupted(own)
    started = read_origin(recipe.folder)
    before = (tmp_path / "own" / "0.bmp").stat()
    write_pictures(tmp_path / "own", first="teal")
    os.utime(tmp_path / "own" / "0.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (tmp_path / "own" / "0.bmp").stat().st_size == before.st_size
    with pytest.raises(
        RunError, match=r"`--resume` needs the data .*data\.vqa\.\w+\.media was media, sha256 "
    ):
        execute(recipe, resume=True)
    assert read_origin(recipe.folder) == started
    write_pictures(tmp_path / "own")
    result = execute(recipe, resume=True)
    assert json.loads((result.folder / "result.json").read_text())["data"] == started == noted(recipe)


def test_a_run_goes_on_only_with_the_records_it_was_started_with(own, tmp_path):
    recipe = interrupted(own)
    lines = (tmp_path / "own" / "test.jsonl").read_text()
    (tmp_path / "own" / "test.jsonl").write_text(lines.replace("what color", "which color"))
    with pytest.raises(RunError, match=r"`--resume` needs the data .*data\.vqa\.test was 8 records, sha256"):
        execute(recipe, resume=True)
    (recipe.folder / ORIGIN).unlink()
    with pytest.raises(RunError, match="what data it is of is not noted in it"):
        execute(recipe, resume=True)


def test_data_that_were_copied_elsewhere_are_the_same(own, tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_DATA", str(tmp_path / "own"))
    own["tasks"]["vqa"]["data"]["root"] = "$WEFT_DATA"
    recipe = interrupted(own)
    shutil.copytree(tmp_path / "own", tmp_path / "scratch", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "own")
    monkeypatch.setenv("WEFT_DATA", str(tmp_path / "scratch"))
    execute(recipe, resume=True)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "shards"])
def test_a_picture_that_is_replaced_in_an_archive_or_in_shards_is_noticed(own, tmp_path, kind):
    data = own["tasks"]["vqa"]["data"]

    def packed() -> dict[str, str]:
        if kind == "shards":
            for split in ("train", "test"):
                shutil.rmtree(tmp_path / "shards" / split, ignore_errors=True)
                records = load_dataset("table", tmp_path / "own", split, record="image_qa")
                convert(records, tmp_path / "shards" / split)
            data.update(name="shards", root=str(tmp_path / "shards"), options={})
        else:
            data["root"] = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "own")
            close_handles()
        return noted(load_recipe(own))

    first = packed()
    close_handles()
    assert noted(load_recipe(own)) == first
    write_pictures(tmp_path / "own", first="teal")
    other = packed()
    differing = {key for key in first if first[key] != other[key]}
    assert differing == {"data.vqa.train.media", "data.vqa.test.media"}


def test_pictures_inside_a_table_go_by_their_content(own, tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="weft-data brings pyarrow")
    from pyarrow import Table

    def written(colour: int) -> dict[str, str]:
        for split in ("train", "test"):
            rows = [
                {
                    "image": image_bytes(color=(colour if k == 0 else 9, 0, 0)),
                    "question": "what",
                    "answers": ["red"] * 10,
                }
                for k in range(ROWS)
            ]
            pyarrow.write_table(Table.from_pylist(rows), tmp_path / "own" / f"{split}.parquet")
            (tmp_path / "own" / f"{split}.jsonl").unlink(missing_ok=True)
        return noted(load_recipe(own))

    first = written(1)
    other = written(2)
    assert first["data.vqa.train.media"] != other["data.vqa.train.media"]


def test_the_files_that_a_recipe_names_are_part_of_what_a_run_is_made_of(own, tmp_path):
    shutil.copytree(MINIATURE, tmp_path / "model")
    answers = tmp_path / "answers.json"
    answers.write_text('["red", "blue"]')
    own["backbone"] = {"name": str(tmp_path / "model")}
    own["tasks"]["vqa"]["choose_from"] = str(answers)
    recipe = load_recipe(own)
    first = noted(recipe)
    assert noted(recipe) == first
    answers.write_text('["red", "teal"]')
    second = noted(recipe)
    assert {key for key in first if first[key] != second[key]} == {"files.tasks.vqa.choose_from"}
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 3] ^= 1
    weights.write_bytes(content)
    third = noted(recipe)
    assert {key for key in second if second[key] != third[key]} == {"files.backbone.name"}


def test_stored_features_count_as_they_are_and_other_items_of_their_store_do_not(own, tmp_path):
    config = AutoConfig.from_pretrained(MINIATURE)
    shape = (config.num_visual_tokens, config.feature_size)

    def written(first: float, more: int = 0) -> dict[str, str]:
        values = [first, *range(1, ROWS + more)]
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        items = [(str(k), np.full(shape, value, np.float16)) for k, value in enumerate(values)]
        write_features(tmp_path / "store", items, FeatureKey("e", "w", "t"), by="name", shard_items=3)
        return noted(recipe)

    own["tasks"]["vqa"]["data"]["features"] = str(tmp_path / "store")
    recipe = load_recipe(own)
    first = written(0)
    assert "data.vqa.train.media" not in first
    assert written(0, more=4) == first
    (tmp_path / "own" / "0.bmp").unlink()
    assert written(0) == first, "pictures are not looked at"
    other = written(0.5)
    differing = {key for key in first if first[key] != other[key]}
    assert differing == {"data.vqa.train.features", "data.vqa.test.features"}
