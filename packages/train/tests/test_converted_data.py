"""A recipe trains on what `weft data convert` wrote, and on a folder in the hub's format, as on the original files."""

import gc
import io
import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from weft.data import ImageQA, load_dataset
from weft.data.errors import InvalidArgumentError
from weft.data.sampling.mixing import TaskMixture
from weft.data.shards.convert import convert
from weft.data.shards.parquet import decode_record
from weft.train.errors import RecipeError, RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights, losses

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
    weights = adapter_weights(result.folder)
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


def write_shards(root: Path) -> None:
    for split in ("train", "test"):
        records = load_dataset("table", root / "own", split, record="image_qa")
        convert(records, root / "shards" / split, rows_per_shard=4, group_rows=2)


@pytest.fixture
def streamed(values: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe on shards that are streamed, mixed with a task on rendered scenes."""
    write_questions(tmp_path)
    write_shards(tmp_path)
    data = {"name": "shards", "root": str(tmp_path / "shards"), "streaming": True}
    own = {"prompt": "vqa: ", "metric": "vqa", "max_new_tokens": 3, "data": data}
    values["tasks"] = {"own": own, "scenes": values["tasks"]["vqa"]}
    mixing = {"strategy": "temperature", "temperature": 2.0, "unit": "mixed"}
    del values["training"]["steps"]
    values["training"] |= {
        "epochs": 1,
        "vision": "trained",
        "mixing": mixing,
        "log_every": 1,
        "save_every": 1,
    }
    return values


def outcome(values: dict[str, Any], *changes: str, resume: bool = False) -> tuple[Any, Any, Any]:
    result = execute(load_recipe(values, list(changes)), resume=resume)
    weights = adapter_weights(result.folder)
    return losses(result.folder), {key: value.tolist() for key, value in weights.items()}, dict(result.scores)


def test_streamed_shards_train_as_listed_ones_also_by_workers_and_after_a_kill(streamed):
    listed = outcome(streamed, "name=listed", "tasks.own.data.streaming=false")
    assert len(listed[0]) > 3
    assert outcome(streamed, "name=whole") == listed
    assert outcome(streamed, "name=workers", "training.workers=2", "training.keep_images=0") == listed
    again = load_recipe(streamed, ["name=whole"]).folder
    shutil.rmtree(again / "adapter")
    (again / "result.json").unlink()
    shutil.rmtree(max((again / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:])))
    assert outcome(streamed, "name=whole", resume=True) == listed
    assert rescore(again).scores == listed[2]


def test_rows_of_the_hub_stream_as_they_are_listed(streamed, tmp_path):
    options = {"record": "image_qa", "columns": COLUMNS}
    streamed["tasks"]["own"]["data"] |= {"name": "hub", "root": str(tmp_path / "hub"), "options": options}
    listed = outcome(streamed, "name=listed", "tasks.own.data.streaming=false")
    assert outcome(streamed, "name=streamed") == listed


def test_a_stream_holds_the_records_of_a_few_row_groups_whatever_the_size_of_the_set(tmp_path, monkeypatch):
    write_questions(tmp_path)
    own = load_dataset("table", tmp_path / "own", "train", record="image_qa")
    many = own.with_records([replace(own[k % ROWS], id=str(k)) for k in range(600)])
    convert(many, tmp_path / "many" / "train", rows_per_shard=60, group_rows=3, embed_media=True)
    del many, own
    live: list[int] = []

    def counted(*arguments: Any) -> Any:
        live.append(sum(isinstance(each, ImageQA) for each in gc.get_objects()))
        return decode_record(*arguments)

    monkeypatch.setattr("weft.data.shards.parquet.decode_record", counted)
    streamed = load_dataset("shards", tmp_path / "many", "train", streaming=True)
    gc.collect()
    assert len(streamed) == 600
    mixture = TaskMixture({"vqa": len(streamed)}, batch_size=4)
    for batch in islice(mixture, 12):
        assert [streamed[row].id for _, row in batch] == [str(row) for _, row in batch]
        assert [streamed[row].image.read() for _, row in batch] == [png(row % ROWS) for _, row in batch]
    # Four groups of texts, four with their pictures, and two in the making.
    assert max(live) - live[0] <= 3 * (4 + 1 + 4 + 1)
    del live[:]
    assert len(streamed.fingerprint()) == len(streamed.media_fingerprint()) == 64
    assert not live, "the index tells what the shards hold"


def test_what_needs_a_list_of_streamed_records_is_refused_in_one_message(streamed):
    streamed["tasks"]["own"]["data"] |= {
        "train": ["train", "test"],
        "sizes": {"train": 4},
        "each_caption": True,
    }
    streamed["training"]["vision"] = "frozen"
    streamed["tasks"]["scenes"]["data"]["streaming"] = True
    with pytest.raises(RecipeError) as raised:
        execute(load_recipe(streamed))
    told = str(raised.value)
    assert "tasks.own.data.streaming: this must be false with" in told
    for word in ("several training splits", "`each_caption`", "`sizes.train`"):
        assert word in told
    assert "tasks.scenes.data.streaming" in told
    assert "not one of conversations, hub, shards" in told


def test_streams_of_a_model_of_wefts_own_need_a_trained_tower(streamed):
    streamed["training"]["vision"] = "frozen"
    with pytest.raises(RunError, match=r"`training.vision` must be 'trained' .* and task 'own' is streamed"):
        execute(load_recipe(streamed))


def test_only_data_that_allow_it_are_streamed(tmp_path):
    write_questions(tmp_path)
    with pytest.raises(
        InvalidArgumentError,
        match=r"`streaming` must be left out of data set 'table'.*conversations, hub, shards can",
    ):
        load_dataset("table", tmp_path / "own", "train", record="image_qa", streaming=True)
