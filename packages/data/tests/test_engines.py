import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from weft.data import Classify, MediaRef
from weft.data.errors import (
    CorruptMediaError,
    InvalidArgumentError,
    MalformedRecordError,
    MissingDependencyError,
    StateMismatchError,
    UnknownNameError,
)
from weft.data.features.extract import extract_features
from weft.data.features.index import FeatureKey
from weft.data.media.tolerance import CorruptMediaCounter
from weft.data.processes.engines import check_engine, run_jobs
from weft.data.records.record_set import RecordSet
from weft.data.shards.convert import convert
from weft.data.testing import image_bytes, mean_colors

KEY = FeatureKey("toy", "w", "t")


def numbered(count):
    records = [
        Classify(id=str(k), image=MediaRef.from_bytes(image_bytes((k, 0, 0))), label=0, class_name="c")
        for k in range(count)
    ]
    return RecordSet("toy", "train", "classify", records)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def double(number):
    return 2 * number


def test_jobs_run_in_order():
    assert list(run_jobs(double, [1, 2, 3], "serial", 1)) == [2, 4, 6]


def test_unknown_engines_and_absent_libraries_are_refused(monkeypatch):
    with pytest.raises(UnknownNameError, match=r"'rya'\. Did you mean 'ray'"):
        check_engine("rya")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ray\[data\]'"):
        check_engine("ray")


def test_features_are_extracted_in_batches(tmp_path):
    sizes = []

    def counting(records):
        sizes.append(len(records))
        return mean_colors(records)

    records = numbered(11)
    store = extract_features(records, counting, tmp_path / "s", KEY, batch_size=2, shard_items=5)
    assert sizes == [2, 2, 1, 2, 2, 1, 1]
    assert store.ids == [record.image.identity for record in records]
    np.testing.assert_allclose(store[store.find(records[7].image)], [7, 0, 0], atol=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_killed_extraction_goes_on_and_gives_the_same_bytes(tmp_path):
    extract_features(numbered(20), mean_colors, tmp_path / "whole", KEY, shard_items=4)
    calls = []

    def dying(records):
        calls.append(records[0].id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return mean_colors(records)

    with pytest.raises(KeyboardInterrupt):
        extract_features(numbered(20), dying, tmp_path / "cut", KEY, shard_items=4)
    (tmp_path / "cut" / ".features-00003-0.npy.x").write_bytes(b"half")
    with pytest.raises(StateMismatchError, match="differs in weights"):
        extract_features(numbered(20), mean_colors, tmp_path / "cut", FeatureKey("toy", "v", "t"))
    extract_features(numbered(20), dying, tmp_path / "cut", KEY, shard_items=4)
    assert calls == ["0", "4", "8", "12", "12", "16"]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def write_both(root, engine):
    for name, used in (("a", "serial"), ("b", engine)):
        convert(numbered(20), root / "shards" / name, rows_per_shard=4, engine=used)
        extract_features(numbered(20), mean_colors, root / "store" / name, KEY, shard_items=4, engine=used)
    return [contents(root / kind / name) for kind in ("shards", "store") for name in "ab"]


@pytest.mark.slow
def test_processes_write_the_same_bytes(tmp_path):
    shards, other_shards, store, other_store = write_both(tmp_path, "processes")
    assert shards == other_shards
    assert store == other_store


class Together:
    """Threads that stand for processes; the first decides for all."""

    def __init__(self, size):
        self.barrier, self.found, self.met = threading.Barrier(size, timeout=60), None, 0

    def decide(self, rank):
        def call(function):
            if rank == 0:
                self.found, self.met = function(), self.met + 1
            self.barrier.wait()
            found = self.found
            self.barrier.wait()
            return found

        return call


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_share_the_shards_and_write_the_same_bytes(tmp_path, size):
    extract_features(numbered(17), mean_colors, tmp_path / "alone", KEY, shard_items=4)
    together, seen = Together(size), []

    def work(rank):
        def encode(records):
            seen.append((rank, records[0].id))
            return mean_colors(records)

        return extract_features(
            numbered(17),
            encode,
            tmp_path / "shared",
            KEY,
            batch_size=2,
            shard_items=4,
            place=(rank, size),
            decide=together.decide(rank),
        )

    with ThreadPoolExecutor(size) as pool:
        stores = list(pool.map(work, range(size)))
    assert sorted(seen) == sorted((start // 4 % size, str(start)) for start in range(0, 17, 2))
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert all(len(store) == 17 for store in stores)
    # They meet after every batch, so that none waits for the whole share of another.
    assert together.met >= 2 * -(-5 // size)


@pytest.mark.parametrize(
    ("records", "change", "error", "message"),
    [
        (numbered(2), {"place": (0, 2)}, InvalidArgumentError, r"but is \(0, 2\) without `decide`"),
        (numbered(2), {"place": (2, 2), "decide": list}, InvalidArgumentError, r"but is \(2, 2\) with"),
        (
            numbered(2),
            {"place": (0, 2), "decide": list, "engine": "processes"},
            InvalidArgumentError,
            "`engine` must be 'serial' where `place`",
        ),
        (numbered(0), {}, InvalidArgumentError, "there are 0 records"),
        (numbered(1), {"batch_size": 0}, InvalidArgumentError, "the numbers are 0, 1024 and 2"),
        (numbered(2), {"encode": lambda records: []}, InvalidArgumentError, "one array per record"),
        (
            numbered(2),
            {"encode": lambda r: [np.array([np.inf])] * len(r)},
            MalformedRecordError,
            "must be finite",
        ),
        (
            numbered(2),
            {"encode": lambda r: [np.ones(int(x.id) + 1) for x in r]},
            MalformedRecordError,
            "must have the shape",
        ),
    ],
)
def test_impossible_extractions_are_refused(tmp_path, records, change, error, message):
    arguments = {"encode": mean_colors, **change}
    with pytest.raises(error, match=message):
        extract_features(records, path=tmp_path / "s", key=KEY, **arguments)
    assert not list((tmp_path / "s").glob("*"))


def test_damaged_media_are_left_out_counted_and_named_up_to_the_limit(caplog):
    good, bad = MediaRef.from_bytes(image_bytes()), MediaRef.from_bytes(b"no", "bad.png")
    counter = CorruptMediaCounter(limit=2)
    for _ in range(2):
        kept = counter.decode([good, bad, good], MediaRef.image)
        assert [item for item, _ in kept] == [good, good]
    assert len(counter.damaged) == 2
    assert "left out (2 of at most 2)" in caplog.text
    with pytest.raises(
        CorruptMediaError, match=r"(?s)At most 2 damaged media are allowed, but there are 3:.*bad\.png"
    ):
        counter.decode([bad], MediaRef.image)


def test_a_negative_limit_is_refused():
    with pytest.raises(InvalidArgumentError, match="`limit` must not be negative"):
        CorruptMediaCounter(-1)
