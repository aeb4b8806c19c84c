from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from weft.core import attach
from weft.data.errors import MissingFileError, StateMismatchError
from weft.data.features.store import FeatureStore
from weft.train.backbones.loading import load_backbone
from weft.train.cli import main
from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.runs.extract import extract_stores
from weft.train.runs.open_session import make_visual
from weft.train.runs.run import execute


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_extracted_features_are_those_of_the_recipes_own_tower(values, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    assert run("features", str(path), "--store", str(tmp_path / "stores")) == 0
    changes = capsys.readouterr().out.split()
    assert [change.partition("=")[0] for change in changes] == [
        "tasks.vqa.data.features",
        "tasks.nlvr.data.features",
    ]
    own, stored = load_recipe(values), load_recipe(values, [*changes, "name=stored"])
    tasks = load_tasks(own)
    backbone = load_backbone(own.backbone)
    attach(backbone.model, own.method, list(own.tasks))
    images = [record.media_refs() for record in tasks["vqa"]["test"]]
    seen = [
        make_visual(recipe, backbone, tasks, Progress())(images)["visual_features"]
        for recipe in (own, stored)
    ]
    # Sixteen bits hold three digits; the batches in which the tower saw the images differ.
    torch.testing.assert_close(*seen, atol=2e-3, rtol=2e-3)
    assert set(execute(stored).scores) == {"vqa", "nlvr", "average"}


def test_a_store_gains_what_it_lacks_and_is_refused_to_another_tower(values, tmp_path, monkeypatch):
    few = load_recipe(values, ["tasks.vqa.data.sizes.train=8", "tasks.nlvr.data.sizes.train=8"])
    first = extract_stores(few, tmp_path / "stores")
    count, ids = len(FeatureStore(first["vqa"])), FeatureStore(first["vqa"]).ids
    before = (first["nlvr"] / "index.json").stat().st_mtime_ns
    again = extract_stores(load_recipe(values, ["tasks.nlvr.data.sizes.train=8"]), tmp_path / "stores")
    assert FeatureStore(again["vqa"]).ids[:count] == ids
    assert len(FeatureStore(again["vqa"])) > count
    assert (again["nlvr"] / "index.json").stat().st_mtime_ns == before
    monkeypatch.setattr("weft.train.backbones.tower_features.module_digest", lambda tower: "another")
    with pytest.raises(StateMismatchError, match="differs in weights"):
        extract_stores(few, tmp_path / "stores")


def test_a_backbone_without_a_tower_has_no_features(values, tmp_path, monkeypatch):
    monkeypatch.setattr("weft.train.backbones.loading.load_transform", lambda *args: None)
    with pytest.raises(RunError, match="must hold a vision tower"):
        extract_stores(load_recipe(values), tmp_path)


def test_features_of_others_come_into_a_store(tmp_path: Path, capsys):
    arrays = {f"COCO_val2014_{k:012d}": np.full((4, 3), k, np.float16) for k in (3, 7)}
    source = hdf5(tmp_path / "h5", arrays)
    assert run("data", "import-features", source, str(tmp_path / "store"), "--encoder", "CLIP RN101") == 0
    assert "2 items of shape (4, 3)" in capsys.readouterr().out
    store = FeatureStore(tmp_path / "store")
    assert store.key.encoder == "CLIP RN101"
    assert all(np.array_equal(store.get(name), array) for name, array in arrays.items())


def test_frames_of_videos_come_into_a_ragged_store(tmp_path: Path):
    folder = tmp_path / "npz"
    folder.mkdir()
    for name, frames in (("a", 2), ("b", 5)):
        np.savez(folder / f"{name}.npz", features=np.ones((frames, 3), np.float16))
    assert run("data", "import-features", str(folder), str(tmp_path / "store")) == 0
    store = FeatureStore(tmp_path / "store")
    assert store.ragged
    assert [len(features) for _, features in store] == [2, 5]


def hdf5(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    folder.mkdir()
    for name, array in arrays.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file[f"{name}/features"] = array
    return str(folder)


def test_grids_are_pooled_once_as_a_model_pools_them_in_every_step(tmp_path: Path, capsys):
    grids = {name: np.random.default_rng(ord(name)).normal(size=(49, 5)).astype(np.float16) for name in "ab"}
    source = hdf5(tmp_path / "h5", grids)
    assert run("data", "import-features", source, str(tmp_path / "store"), "--tokens", "36") == 0
    assert "2 items of shape (36, 5)" in capsys.readouterr().out
    store = FeatureStore(tmp_path / "store")
    for name, grid in grids.items():
        grid = torch.from_numpy(grid).float().T.unflatten(1, (7, 7))
        assert torch.equal(
            torch.from_numpy(store.get(name).astype(np.float32)),
            torch.nn.functional.max_pool2d(grid[None], 2, 1)[0].flatten(1).T,
        )
    assert "36" in store.key.transform


def test_what_is_no_grid_is_not_pooled(tmp_path: Path, capsys):
    source = hdf5(tmp_path / "h5", {"regions": np.zeros((10, 5), np.float16)})
    assert run("data", "import-features", source, str(tmp_path / "store"), "--tokens", "4") == 2
    assert "'regions': `features` with 10 tokens" in capsys.readouterr().err
    assert not (tmp_path / "store" / "index.json").exists()


def test_videos_are_brought_to_one_length(tmp_path: Path):
    folder = tmp_path / "npz"
    folder.mkdir()
    for name, frames in (("a", 2), ("b", 6)):
        np.savez(folder / f"{name}.npz", features=np.arange(frames * 2.0, dtype=np.float16).reshape(-1, 2))
    assert run("data", "import-features", str(folder), str(tmp_path / "store"), "--tokens", "3") == 0
    store = FeatureStore(tmp_path / "store")
    assert not store.ragged
    assert store.get("a").tolist() == [[0, 1], [2, 3], [0, 0]]
    assert store.get("b").tolist() == [[2, 3], [6, 7], [10, 11]]


def test_a_folder_without_features_is_refused(tmp_path: Path, capsys):
    assert run("data", "import-features", str(tmp_path), str(tmp_path / "store")) == 2
    assert "must be or hold files that end in .h5" in capsys.readouterr().err
    with pytest.raises(MissingFileError):
        FeatureStore(tmp_path / "store")
