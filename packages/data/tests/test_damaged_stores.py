"""Stores and shards that somebody else changed are refused by name; nothing beside them is read."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from weft.data import ImageQA, RecordSet
from weft.data.errors import CorruptMediaError, StateMismatchError
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.data.features.write import write_features
from weft.data.media.reference import MediaRef
from weft.data.sampling.few_shot import FewShotDraw
from weft.data.shards.convert import convert
from weft.data.shards.parquet import ShardedRecords, decode_record

KEY = FeatureKey("encoder", "weights", "transform")


@pytest.fixture(params=[False, True], ids=["even", "ragged"])
def features(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    items = [(str(k), np.full((1 + k * request.param, 2), k, np.float16)) for k in range(3)]
    write_features(tmp_path / "store", items, KEY, ragged=request.param)
    return tmp_path / "store"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    picture = MediaRef.from_bytes(b"x", "0.png")
    records = [ImageQA(id=str(k), image=picture, image_id="0", question="q") for k in range(3)]
    convert(RecordSet("own", "train", "image_qa", records), tmp_path / "shards", group_rows=2)
    return tmp_path / "shards"


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


SHARD = {"name": "00000-ab", "count": 3, "bytes": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": None}, "top: must be an object"),
        ({"by": "path"}, "`by` must be one of identity, name, but is 'path'"),
        ({"dtype": "object"}, "`dtype` must be one of float16, float32"),
        ({"item_shape": [-1]}, "`item_shape` must hold sizes of axes"),
        ({"shards": [3]}, "shards 0: must be an object, but is int"),
        ({"shards": [{**SHARD, "count": 10**18}]}, "must have files as large as its items"),
        ({"shards": [{**SHARD, "count": -1}]}, "`count` must be at least 0, but is -1"),
        ({"shards": [{**SHARD, "name": "00000-../../x"}]}, "must name files in the folder of the store"),
        ({"shards": [{**SHARD, "bytes": {"../x": 1}}]}, "must name files in the folder of the store"),
        ({"shards": [{**SHARD, "bytes": {"x" * 5000: 1}}]}, "must name files in the folder of the store"),
        ({"version": 1, "key": {"weights": "imported"}}, "must have the field `starts`"),
    ],
)
def test_an_index_of_features_that_no_weft_wrote_is_named(
    features: Path, changes: dict[str, object], message: str
) -> None:
    change(features / "index.json", **changes)
    with pytest.raises(CorruptMediaError, match=rf"index\.json.*{re.escape(message.removeprefix('top: '))}"):
        FeatureStore(features)


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"[]", b'"x"', b"[" * 5000, b'{"version": ' + b"9" * 5000 + b"}"]
)
def test_an_index_that_is_no_json_object_is_named(features: Path, shards: Path, text: bytes) -> None:
    for folder, open_it in ((features, FeatureStore), (shards, ShardedRecords)):
        (folder / "index.json").write_bytes(text)
        with pytest.raises(CorruptMediaError, match=r"index\.json"):
            open_it(folder)


def array_of(folder: Path) -> Path:
    return next(folder.glob("features-*.npy"))


def test_an_array_of_objects_is_refused_and_never_unpickled(features: Path) -> None:
    for odd in (np.array([{}, {}, {}]), np.array(3.0), np.ones((3, 2, 2), np.float16), np.array(["x"] * 3)):
        np.save(array_of(features), odd, allow_pickle=True)
        index = json.loads((features / "index.json").read_text())
        index["shards"][0]["bytes"][array_of(features).name] = array_of(features).stat().st_size
        (features / "index.json").write_text(json.dumps(index))
        with pytest.raises(
            CorruptMediaError, match=r"features-.*\.npy must (be an array of features|hold the 3 items)"
        ):
            FeatureStore(features)


@pytest.mark.parametrize(
    "changes", [{"checksums": []}, {"ids": [1]}, {"checksums": ["x"] * 3}, {"lengths": [1]}]
)
def test_items_that_do_not_fit_their_features_are_named(features: Path, changes: dict[str, object]) -> None:
    file = next(features.glob("items-*.json"))
    index = json.loads((features / "index.json").read_text())
    ragged = index["ragged"]
    change(file, **changes)
    index["shards"][0]["bytes"][file.name] = file.stat().st_size
    (features / "index.json").write_text(json.dumps(index))
    if "lengths" in changes and not ragged:
        assert len(FeatureStore(features)) == 3
        return
    with pytest.raises(CorruptMediaError, match=r"items-.*\.json"):
        FeatureStore(features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_rows": 0}, "`group_rows` must be at least 1, but is 0"),
        (
            {"shards": [{"file": "../x", "rows": 1, "bytes": 1, "sha256": ""}]},
            "`file` must lie beside the index",
        ),
        ({"shards": [{"file": "x"}]}, "shards 0: must have the field `rows`"),
    ],
)
def test_an_index_of_shards_that_no_weft_wrote_is_named(
    shards: Path, changes: dict[str, object], message: str
) -> None:
    change(shards / "index.json", **changes)
    with pytest.raises(CorruptMediaError, match=rf"index\.json.*{re.escape(message)}"):
        ShardedRecords(shards)


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        ("{", 1, "must be JSON, but"),
        ("[]", 1, "must be an object, but is list"),
        ('{"id": "1", "image_id": "1", "question": "q"}', 0, "must have 1 media, but has 0"),
        ('{"id": 1, "image_id": "1", "question": "q"}', 1, "`id` must be str, but is 1"),
        (
            '{"id": "1", "image_id": "1", "question": "q", "answers": "x"}',
            1,
            r"`answers` must be tuple\[str, ...\], but is 'x'",
        ),
        (
            '{"id": "1", "image_id": "1", "question": "q", "soft_targets": {"a": "b"}}',
            1,
            "`soft_targets` must be",
        ),
        ('{"id": "1", "image_id": "1"}', 1, "must have the fields of a ImageQA, but lacks or adds question"),
        (
            '{"id": "1", "image_id": "1", "question": "q", "x": 1}',
            1,
            "must have the fields of a ImageQA, but lacks or adds x",
        ),
    ],
)
def test_a_row_of_a_shard_that_is_no_record_is_named(text: str, media: int, message: str) -> None:
    picture = MediaRef.from_bytes(b"x", "0.png")
    with pytest.raises(CorruptMediaError, match=f"shard-00000.parquet:7.*{message}"):
        decode_record("image_qa", text, [picture] * media, "shard-00000.parquet:7")


def test_a_shard_with_other_rows_than_the_index_says_is_named(shards: Path) -> None:
    index = json.loads((shards / "index.json").read_text())
    for rows, group in ((10**12, 2), (3, 3)):
        change(shards / "index.json", shards=[{**index["shards"][0], "rows": rows}], group_rows=group)
        with pytest.raises(CorruptMediaError, match="another number of rows than the index says"):
            [ShardedRecords(shards)[k] for k in range(3)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"train": 3, "validation": []}', "[" * 5000])
def test_a_draw_that_no_weft_wrote_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "draw.json").write_text(text)
    with pytest.raises(StateMismatchError, match="must be a few-shot draw written by"):
        FewShotDraw.load(tmp_path / "draw.json")
