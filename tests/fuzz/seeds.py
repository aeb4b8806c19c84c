"""Small valid files of every target, made here so that none lies in the repository twice."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from functools import cache
from typing import Any

from tests.fuzz import model_targets, model_trees, run_targets, trees
from tests.fuzz.targets import FEW_SHOT, RECIPE


@cache
def seeds(name: str) -> list[bytes]:
    """What fuzzing of a target starts from."""
    makers: dict[str, Any] = {
        "recipes": lambda: [RECIPE.encode(), FEW_SHOT.encode(), *_extending()],
        "overrides": lambda: [
            b"training.steps=3",
            b"tasks.vqa.data={name: scenes}",
            b"seed=1,2",
            b"method.0.a=1",
        ],
        "prediction_tables": _prediction_tables,
        "tables_csv": lambda: [
            b"image,question,answer\na.jpg,what?,x\n",
            b'image,question,answer\n"a,b",q,y\n',
        ],
        "tables_jsonl": lambda: [
            b'{"image": "a.jpg", "question": "q", "answer": "x"}\n',
            b'{"image": "a.jpg", "question": "q", "answers": ["x", {"answer": "y"}]}\n',
        ],
        "tables_parquet": _parquet,
        "webdataset": lambda: [_tar({"a.json": b'{"captions": ["x"]}', "a.jpg": _jpeg(), "b.txt": b"a\xe9"})],
        "annotations": lambda: trees.seeds_of(trees.data_sets()),
        "submissions": lambda: trees.seeds_of(trees.submissions()),
        "archives_zip": lambda: [_zip({"a/b.txt": b"x" * 50})],
        "archives_tar": lambda: [_tar({"a/b.txt": b"x" * 50})],
        "archives_gz": lambda: [gzip.compress(_tar({"a/b.txt": b"x" * 50}), mtime=0)],
        "images": lambda: [_png(), _jpeg(), *_pictures(), b"%!PS-Adobe-3.0 EPSF-3.0\n"],
        "adapters": lambda: trees.seeds_of(trees.adapters()),
        "heads": lambda: trees.seeds_of(trees.heads()),
        "features": lambda: trees.seeds_of(trees.features()),
        "locks": lambda: [b'{"host": "h", "pid": 3, "since": 1.0}'],
        "run_folders": lambda: trees.seeds_of(trees.runs(RECIPE)),
        "run_resumed": lambda: [
            seed
            for seed in trees.seeds_of(trees.runs(RECIPE))
            if seed.startswith((b"run checkpoints/", b"run adapter/", b"run seconds"))
        ],
        "spools": _spools,
        "encoders": lambda: trees.seeds_of(model_trees.encoders()),
        "backbones": lambda: trees.seeds_of(model_trees.backbones()),
        "weights": _weights,
        "listed": lambda: trees.seeds_of(model_targets.listed()),
        "foreign_features": lambda: trees.seeds_of(model_targets.foreign()),
        "videos": lambda: [model_targets.video()],
        "shared": lambda: trees.seeds_of(run_targets.shared()),
        "few_shot_runs": lambda: trees.seeds_of(run_targets.few_shot_runs()),
        "requests": lambda: run_targets.requests(_png()),
        "requests_raw": run_targets.raw_requests,
    }
    return list(makers[name]())


def _extending() -> list[bytes]:
    several = b"method:\n- {method: lora, rank: 2, linears: [q, v]}\n- {method: prompt, length: 3}\n"
    return [
        b"extends: demo/single_adapter\nname: x\n",
        b'# Remark.\n"extends": demo/frozen # more\nseed: 5\n',
        b"extends: demo/single_adapter\n" + several,
        b"extends: tip_adapter/eurosat\nshots: [1]\n",
        *_keys(),
        b"a: &a {b: 1}\nc:\n  <<: *a\n  d: 2\n",
    ]


def _keys() -> list[bytes]:
    """Recipes of many keys that the plain ones do without."""
    front = b"extends: demo/single_adapter\n"
    layers = (
        b"{up: [task], layers: [{range: 0-1, up: []}, {range: 2, blocks: [ffn], towers: text, down: []}]}"
    )
    groups = b"{up: {task: [[vqa, gqa], [nlvr]]}, down: [task]}"
    training = b"training: {packing: true, balance: pcgrad, vision: stored, max_tokens: 9, too_long: drop}"
    head = b"{method: tip_adapter, select_by: loss, search_widenings: 1}"
    encoder = b"{library: open_clip, name: RN50, weights: a.pt, sha256: " + b"0" * 64 + b"}"
    return [
        front + b"method: {method: bottleneck, bottleneck_size: 4, sharing: " + layers + b"}\n",
        front + b"method: {method: lora, rank: 2, linears: [q], sharing: " + groups + b"}\n",
        front + training + b"\nbackbone: {name: m, reader: chat, processor: {frames: 8}, attention: sdpa}\n",
        b"extends: tip_adapter/eurosat\nheads: ["
        + head
        + b"]\nclass_texts: a.json\nencoder: "
        + encoder
        + b"\n",
    ]


def _weights() -> list[bytes]:
    from safetensors.torch import save

    from weft.core.testing.original_names import original_blip

    kept = save(original_blip(model_trees.blip_model()))
    archives = [model_trees.packed(tree.files) for tree in model_trees.weights().values()]
    members = trees.seeds_of(model_trees.weights())
    # One of many tensors says as much as all of them.
    several = [seed for seed in members if b"/data/" in seed.partition(b"\n")[0]]
    return [kept, *archives, several[0], *(seed for seed in members if seed not in several)]


def _prediction_tables() -> list[bytes]:
    head = {"task": "vqa", "metric": "vqa", "best": 100.0, "rows": 1}
    row = {
        "id": "1",
        "prediction": "a",
        "references": ["b"],
        "score": 0.0,
        "question": "q",
        "groups": {"k": "v"},
    }
    kept = [
        seed.partition(b"\n")[2] for seed in trees.seeds_of(trees.runs(RECIPE)) if b"table.jsonl" in seed[:99]
    ]
    return [*kept, f"{json.dumps(head)}\n{json.dumps({**row, 'pictures': ['p/1.jpg']})}\n".encode()]


def _spools() -> list[bytes]:
    start = {"sequence": 0, "kind": "start", "time": 1, "uri": "http://h", "experiment": "e", "name": "n"}
    start |= {"run_id": None, "params": {"p": "1"}, "tags": {"weft.spool": "s"}, "parent_spool": None}
    events = [start, {"sequence": 1, "kind": "metrics", "time": 2, "step": 0, "values": {"a": 1.0}}]
    events += [{"sequence": 2, "kind": "artifact", "time": 2, "files": "f", "destination": None}]
    events += [{"sequence": 3, "kind": "tags", "time": 3, "tags": {"t": "1"}}]
    source = {"name": "scenes", "root": "http://h/x"}
    events += [
        {"sequence": 4, "kind": "dataset", "time": 3, "name": "d", "digest": "1", "split": "test"}
        | {"source": source, "profile": {"records": 3}}
    ]
    events += [
        {"sequence": 5, "kind": "model", "time": 3, "files": "f", "name": "model", "params": {"a": "1"}}
        | {"values": {"test/d": 1.0}, "datasets": {"test/d": {"name": "d", "digest": "1"}}, "register": "r"}
    ]
    events += [{"sequence": 6, "kind": "end", "time": 3, "status": "FINISHED"}]
    lines = "\n".join(map(json.dumps, events)).encode()
    return [lines, lines + b'\n--\n{"offset": 0, "run_id": "r"}']


def _parquet() -> list[bytes]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    stream = io.BytesIO()
    parquet.write_table(arrow.table({"image": ["a.jpg"], "question": ["q"], "answer": ["x"]}), stream)
    return [stream.getvalue()]


def _tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(7)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def _jpeg() -> bytes:
    return _picture("JPEG")


def _pictures() -> list[bytes]:
    """One picture of each format that weft opens and Pillow can write here."""
    from PIL import Image

    from weft.data.media.images import FORMATS

    Image.init()
    return [_picture(kind) for kind in FORMATS if kind in Image.SAVE]


def _picture(kind: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 8, 7)).save(stream, kind)
    return stream.getvalue()
