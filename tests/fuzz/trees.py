"""Folders that hang together, of which fuzzing replaces one file at a time: data sets, adapters, runs.

An input for such a folder is a line that names the folder and the file, and then what the file is to hold.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import sys
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MEDIA = (".jpg", ".jpeg", ".png", ".mp4", ".webm", ".mov", ".3gp", ".avi")
LARGEST_SEED = 64 * 1024


@dataclass(frozen=True)
class Tree:
    """A small folder as weft, or a publisher of data, writes it.

    Attributes:
        files: Path to content.
        about: What the target needs to know of it.
    """

    files: Mapping[str, bytes]
    about: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, path: str, content: bytes) -> None:
        """Write it below a folder, with other content for one file."""
        for name, data in {**self.files, path: content}.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)


def chosen(data: bytes, trees: Mapping[str, Tree]) -> tuple[Tree, str, bytes]:
    """The tree, the file and the content that an input means; a first line that names nothing means any of them."""
    head, _, content = data.partition(b"\n")
    places = [(f"{name} {path}".encode(), tree, path) for name, tree in trees.items() for path in tree.files]
    known = {key: (tree, path) for key, tree, path in places}
    tree, path = known.get(head) or places[zlib.crc32(head) % len(places)][1:]
    return tree, path, content


def seeds_of(trees: Mapping[str, Tree], *, media: bool = False) -> list[bytes]:
    """One input for each file of the trees, as it is."""
    return [
        f"{name} {path}\n".encode() + content
        for name, tree in trees.items()
        for path, content in tree.files.items()
        if len(content) <= LARGEST_SEED and (media or not path.lower().endswith(MEDIA))
    ]


@cache
def data_sets() -> dict[str, Tree]:
    """The miniatures of all data sets on which their own tests hold the contract."""
    from weft.data.testing import DatasetContract

    found = {"shards.Converted": _shards()}
    for path in sorted((ROOT / "packages" / "data" / "tests" / "datasets").glob("test_*.py")):
        for name, kind in vars(_module(path)).items():
            contract = isinstance(kind, type) and issubclass(kind, DatasetContract) and hasattr(kind, "name")
            if contract and kind.name not in ("shards", "hub"):
                files = {key: _bytes(value) for key, value in kind().files().items()}
                about = {"name": kind.name, "split": kind.split, "options": dict(kind.options)}
                found[f"{path.stem.removeprefix('test_')}.{name}"] = Tree(files, about)
    return found


def _shards() -> Tree:
    from weft.data import load_dataset
    from weft.data.shards.convert import convert
    from weft.data.testing import image_bytes, write_tree

    place = new_place("shards")
    files = {"a.png": image_bytes(), "train.jsonl": '{"image": "a.png", "question": "q", "answers": ["x"]}\n'}
    records: Any = load_dataset("table", write_tree(place / "own", files), "train", record="image_qa")
    convert(records, place / "made")
    return Tree(files_of(place / "made"), {"name": "shards", "split": "train", "options": {}})


@cache
def submissions() -> dict[str, Tree]:
    """Predictions and annotations of all benchmarks, as their own tests write them."""
    import json

    from weft.eval.submissions import get_submission

    told = _module(ROOT / "packages" / "eval" / "tests" / "test_submissions.py")
    found = {}
    for task, predictions in told.PREDICTIONS.items():
        submission = get_submission(task)
        gold = json.dumps(told.GOLD.get(task, told.LINES.get(task)))
        name = f"predictions{submission.suffix}"
        files = {name: submission.write_predictions(predictions).encode(), "gold": gold.encode()}
        found[task] = Tree(files, {"task": task, "predictions": name})
    return found


@cache
def adapters() -> dict[str, Tree]:
    """Adapters of the tiny backbone as weft, PEFT and AdapterHub save them."""
    from weft.core import BottleneckConfig, LoRAConfig, attach
    from weft.core.files.interop.peft import export_peft

    place = new_place("adapters")
    attach(model(), BottleneckConfig(bottleneck_size=2), ["a", "b"]).save_pretrained(place / "weft")
    export_peft(attach(model(), LoRAConfig(rank=1), ["a"]), place / "peft")
    several = [
        LoRAConfig(rank=1, magnitude=True),
        LoRAConfig(name="more", rank=2, magnitude=True, linears=("key",)),
    ]
    export_peft(attach(model(), several, ["a"]), place / "patterns")
    found = {kind: Tree(files_of(place / kind)) for kind in ("weft", "peft", "patterns")}
    hub = ROOT / "packages" / "core" / "tests" / "data" / "adapterhub" / "bart_double_seq_bn"
    return {**found, "adapterhub": Tree(files_of(hub))}


@cache
def heads() -> dict[str, Tree]:
    """A few-shot head."""
    import torch

    from weft.core.few_shot import ZeroShotHead, save_head

    return {"head": Tree(files_of(save_head(ZeroShotHead(torch.eye(3)), new_place("heads") / "head")))}


@cache
def backbone() -> Path:
    """The folder of a tiny backbone."""
    place = new_place("backbone")
    model().save_pretrained(place)
    return place


def model() -> Any:
    """The tiny backbone, built again with the same weights."""
    import torch

    from weft.core.testing import tiny_backbone

    torch.manual_seed(0)
    return tiny_backbone("bart")[0]


@cache
def store() -> Path:
    """The folder of a tracking store."""
    from weft.eval.tracking import check_store

    place = new_place("store")
    check_store(place, "e")
    return place


@cache
def features() -> dict[str, Tree]:
    """Stores of features, of one shape and ragged."""
    import numpy as np

    from weft.data.features.index import FeatureKey
    from weft.data.features.write import write_features

    place, key = new_place("features"), FeatureKey("encoder", "weights", "transform")
    for name, ragged in (("even", False), ("ragged", True)):
        items = [(str(k), np.full((1 + k * ragged, 2), k, np.float16)) for k in range(3)]
        write_features(place / name, items, key, ragged=ragged)
    return {name: Tree(files_of(place / name)) for name in ("even", "ragged")}


@cache
def runs(recipe: str) -> dict[str, Tree]:
    """A finished run of two steps with its checkpoints; the recipe itself is its `about`."""
    import yaml

    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.run import execute

    place, values = new_place("runs"), yaml.safe_load(recipe)
    short = ["training.steps=2", "training.save_every=1"]
    folder = execute(load_recipe(values, [*short, f"output={place}"])).folder
    return {"run": Tree(files_of(folder), {"values": values, "short": short})}


def _module(path: Path) -> Any:
    name = f"contract_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def files_of(folder: Path) -> dict[str, bytes]:
    """Path to content of all files in a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def new_place(name: str) -> Path:
    """A folder that goes when the process ends."""
    place = Path(tempfile.mkdtemp(prefix=f"weft-fuzz-{name}-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place
