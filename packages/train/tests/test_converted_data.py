"""A recipe trains on what `weft data convert` wrote, and on a folder in the hub's format, as on the original files."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import load_file

from weft.data import load_dataset
from weft.data.shards.convert import convert
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.curves import losses

ROWS = 10
COLUMNS = {"image": "picture", "question": "asked", "answers": "said"}


def png(number: int) -> bytes:
    """A picture that no other number gives, not square."""
    noise = np.random.default_rng(number).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((36, 24), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def write_questions(root: Path) -> None:
    """The same questions as loose files and as Parquet files of the hub's layout."""
    words = ["red", "green", "blue"]
    for split, first in (("train", 0), ("test", ROWS)):
        (root / "own").mkdir(parents=True, exist_ok=True)
        (root / "hub").mkdir(exist_ok=True)
        rows = [(png(first + k), "what color", [words[k % 3]] * 10) for k in range(ROWS)]
        lines = []
        for k, (picture, asked, said) in enumerate(rows):
            (root / "own" / f"{split}-{k}.png").write_bytes(picture)
            lines.append({"id": str(k), "image": f"{split}-{k}.png", "question": asked, "answers": said})
        (root / "own" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        table = [{"picture": {"bytes": p, "path": None}, "asked": q, "said": a} for p, q, a in rows]
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(table), root / "hub" / f"{split}-00000-of-00001.parquet"
        )


def trained(values: dict[str, Any], name: str, data: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Losses of every step, the weights and the scores of a run on some data."""
    task = {"prompt": "vqa: ", "metric": "vqa", "max_new_tokens": 3, "data": data}
    training = values["training"] | {"log_every": 1, "save_every": 1}
    recipe = load_recipe(values | {"name": name, "tasks": {"vqa": task}, "training": training})
    result = execute(recipe)
    weights = load_file(result.folder / "adapter" / "adapter_model.safetensors")
    return losses(result.folder), weights, dict(result.scores)


def test_a_run_on_shards_or_in_the_format_of_the_hub_is_that_on_the_original_files(values, tmp_path):
    write_questions(tmp_path)
    for split in ("train", "test"):
        records = load_dataset("table", tmp_path / "own", split, record="image_qa")
        convert(records, tmp_path / "shards" / split, rows_per_shard=4, group_rows=3)
    asked = {"record": "image_qa"}
    own = trained(values, "own", {"name": "table", "root": str(tmp_path / "own"), "options": asked})
    shards = trained(values, "shards", {"name": "shards", "root": str(tmp_path / "shards")})
    columns = asked | {"columns": COLUMNS}
    hub = trained(values, "hub", {"name": "hub", "root": str(tmp_path / "hub"), "options": columns})
    assert len(own[0]) > 1
    for other in (shards, hub):
        assert other[0] == own[0]
        assert other[1].keys() == own[1].keys()
        assert all(torch.equal(other[1][key], value) for key, value in own[1].items())
        assert other[2] == own[2]
