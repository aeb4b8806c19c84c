import json
import pickle

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from weft.data.errors import (
    CorruptMediaError,
    InvalidArgumentError,
    MalformedRecordError,
    MissingDependencyError,
    MissingFileError,
    StateMismatchError,
    UnknownNameError,
)
from weft.data.features.foreign import read_feature_parquet, read_hdf5, read_npz
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.data.features.write import write_features

KEY = FeatureKey("clip", "w1", "t1")
GENERATOR = np.random.default_rng(0)
FIXED = {f"image-{k}": GENERATOR.normal(size=(3, 5)).astype(np.float16) for k in range(11)}
RAGGED = {f"video-{k}": GENERATOR.normal(size=(k % 4 + 1, 5)).astype(np.float16) for k in range(11)}


@pytest.fixture(params=["fixed", "ragged"])
def stored(request, tmp_path):
    items = FIXED if request.param == "fixed" else RAGGED
    store = write_features(
        tmp_path / "s", items.items(), KEY, ragged=request.param == "ragged", shard_items=4
    )
    return store, items


def test_features_come_back_by_position_and_id(stored):
    store, items = stored
    assert len(store) == 11
    assert store.ids == list(items)
    for item, (identity, array) in enumerate(items.items()):
        np.testing.assert_array_equal(store[item], array)
        np.testing.assert_array_equal(store.get(identity), array)
    assert [identity for identity, _ in store] == list(items)
    assert store.item_shape in ((3, 5), (None, 5))


def test_views_are_read_only_and_16_bit(stored):
    store, _ = stored
    assert store[0].dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        store[0][...] = 0


def test_a_store_travels_to_workers(stored):
    store, items = stored
    store.get("image-3" if "image-3" in items else "video-3")
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 2_000
    np.testing.assert_array_equal(copy[7], store[7])


def test_another_key_is_refused_naming_what_differs(stored):
    store, _ = stored
    FeatureStore(store.path, KEY)
    with pytest.raises(StateMismatchError, match="differs in weights, transform"):
        FeatureStore(store.path, FeatureKey("clip", "w2", "t2"))
    assert KEY.digest() != FeatureKey("clip", "w2", "t1").digest()


def test_an_unknown_id_and_position_are_refused(stored):
    store, _ = stored
    with pytest.raises(UnknownNameError, match="Did you mean"):
        store.get(store.ids[0].replace("-", "_"))
    with pytest.raises(IndexError, match=r"item must lie in 0\.\.10, but is 11"):
        store[11]


def test_a_fresh_computation_is_compared(stored):
    store, items = stored
    store.verify(lambda identity: items[identity])
    with pytest.raises(StateMismatchError, match="must equal a fresh computation"):
        store.verify(lambda identity: items[identity] + 1)


def test_a_changed_byte_is_found_on_opening(stored):
    store, _ = stored
    file = next(store.path.glob("features-00000-*.npy"))
    data = bytearray(file.read_bytes())
    data[140] ^= 0x10
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptMediaError, match="must match its checksum"):
        FeatureStore(store.path, sample=11)


def test_a_shard_cut_short_is_found_on_opening(stored):
    store, _ = stored
    file = next(store.path.glob("features-00001-*.npy"))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(CorruptMediaError, match=r"features-00001-\w+\.npy must have \d+ bytes"):
        FeatureStore(store.path)


def test_a_folder_without_index_or_of_another_version_is_no_store(tmp_path, stored):
    with pytest.raises(MissingFileError, match=r"has no index\.json"):
        FeatureStore(tmp_path)
    store, _ = stored
    index = json.loads((store.path / "index.json").read_text())
    (store.path / "index.json").write_text(json.dumps({**index, "version": 0}))
    with pytest.raises(StateMismatchError, match="of version 2"):
        FeatureStore(store.path)


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([], InvalidArgumentError, "must hold at least one item"),
        ([("a", np.ones(2)), ("a", np.ones(2))], MalformedRecordError, "'a' comes twice"),
        ([("a", np.ones(2)), ("b", np.ones(3))], MalformedRecordError, "must have the shape"),
        ([("a", np.array([1.0, np.nan]))], MalformedRecordError, "must be finite"),
        ([("a", np.array([1e9]))], MalformedRecordError, "must be finite"),
    ],
)
def test_bad_items_leave_nothing_behind(tmp_path, items, error, message):
    with pytest.raises(error, match=message):
        write_features(tmp_path / "s", items, KEY)
    assert list(tmp_path.iterdir()) == []


def test_hdf5_is_read_per_file_and_per_folder(tmp_path):
    for identity, array in FIXED.items():
        with h5py.File(tmp_path / f"{identity}.h5", "w") as file:
            file[f"{identity}/features"] = array
    read = dict(read_hdf5(tmp_path))
    assert sorted(read) == sorted(FIXED)
    np.testing.assert_array_equal(read["image-4"], FIXED["image-4"])
    assert next(iter(read_hdf5(tmp_path / "image-2.h5")))[0] == "image-2"
    with pytest.raises(CorruptMediaError, match="groups with an array `boxes`"):
        list(read_hdf5(tmp_path, "boxes"))


def test_broken_hdf5_is_named(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"no")
    with pytest.raises(CorruptMediaError, match=r"a\.h5 must be an HDF5 file"):
        list(read_hdf5(tmp_path))


@pytest.fixture(params=["a.h5", "a.npz", "a.parquet"])
def foreign(request, tmp_path):
    """A file of features of each kind, and what reads it."""
    path = tmp_path / request.param
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_group("1").create_dataset("features", data=values)
    elif path.suffix == ".npz":
        np.savez(path, features=values)
    else:
        pyarrow.parquet.write_table(pyarrow.table({"id": ["1"], "features": [values.tolist()]}), path)
    return path, {".h5": read_hdf5, ".npz": read_npz, ".parquet": read_feature_parquet}[path.suffix]


def test_damaged_features_of_others_are_read_or_named(foreign):
    path, read = foreign
    whole = path.read_bytes()
    list(read(path))
    generator = np.random.default_rng(0)
    named = 0
    for _ in range(150):
        place = int(generator.integers(len(whole)))
        path.write_bytes(whole[:place] + bytes(generator.bytes(2)) + whole[place + 2 :])
        try:
            list(read(path))
        except CorruptMediaError as error:
            assert path.name in str(error)  # noqa: PT017  (some are read)
            named += 1
    assert named > 5


def test_features_that_open_to_gigabytes_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("1").create_dataset(
            "features", shape=(2**20, 2**12), dtype="f4", chunks=(1024, 1024)
        )
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros((300, 2**20), np.uint8))
    for name, read in (("a.h5", read_hdf5), ("a.npz", read_npz)):
        assert (tmp_path / name).stat().st_size < 2**20
        with pytest.raises(CorruptMediaError, match=r"must open to at most 256 MiB or 100 times its size"):
            list(read(tmp_path / name))


def test_without_h5py_the_install_command_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"pip install h5py"):
        list(read_hdf5(tmp_path))


def test_parquet_of_the_hub_is_read(tmp_path):
    kind = pyarrow.list_(pyarrow.list_(pyarrow.float16()))
    columns = {
        "id": pyarrow.array(list(FIXED)),
        "features": pyarrow.array([array.tolist() for array in FIXED.values()], kind),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "0.parquet", compression="zstd")
    read = dict(read_feature_parquet(tmp_path))
    np.testing.assert_array_equal(np.asarray(read["image-9"], np.float16), FIXED["image-9"])
    pyarrow.parquet.write_table(
        pyarrow.table({"id": ["a"], "features": [[1.0, 2.0]]}), tmp_path / "flat.parquet"
    )
    assert next(iter(read_feature_parquet(tmp_path / "flat.parquet")))[1].tolist() == [1.0, 2.0]


def test_parquet_without_the_columns_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(CorruptMediaError, match="must be Parquet with columns"):
        list(read_feature_parquet(tmp_path))


def test_npz_of_videos_is_read(tmp_path):
    for identity, array in RAGGED.items():
        np.savez(tmp_path / f"{identity}.npz", features=array)
    read = dict(read_npz(tmp_path))
    np.testing.assert_array_equal(read["video-3"], RAGGED["video-3"])
    with pytest.raises(CorruptMediaError, match="npz file with `boxes`"):
        list(read_npz(tmp_path, "boxes"))


@pytest.mark.parametrize("read", [read_hdf5, read_feature_parquet, read_npz])
def test_a_folder_without_such_files_is_refused(tmp_path, read):
    with pytest.raises(MissingFileError, match="must be a file or a folder with"):
        list(read(tmp_path))
