"""One store of features: right for every picture, grown by what it lacks, shared by runs that meet in it."""

import json
import logging
import multiprocessing
import shutil
import threading
import zlib

import numpy as np
import pytest

from weft.data import Classify, MediaRef
from weft.data.errors import StateMismatchError
from weft.data.features.extract import LOCK, extract_features
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.data.processes.locks import held
from weft.data.sources.folders import FolderStore
from weft.data.testing import image_bytes, mean_colors

KEY = FeatureKey("toy", "w", "t")


def pictures(folder, numbers):
    """Records of files whose colours are their numbers."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        if not (folder / f"{number}.png").exists():
            (folder / f"{number}.png").write_bytes(image_bytes((number, 0, 0)))
    return records_of(folder, numbers)


def records_of(folder, numbers):
    store = FolderStore(str(folder))
    return [
        Classify(id=f"{k}", image=MediaRef(f"{number}.png", store), label=0, class_name="c")
        for k, number in enumerate(numbers)
    ]


class Counting:
    """Mean colours, and which records were encoded."""

    def __init__(self):
        self.paths = []

    def __call__(self, records):
        self.paths += [record.image.path for record in records]
        return mean_colors(records)


def colors(store, records):
    return [round(float(store[store.find(record)][0])) for record in records]


def test_a_store_grows_by_what_it_lacks_whatever_the_order(tmp_path):
    encode = Counting()
    extract_features(pictures(tmp_path / "a", range(5)), encode, tmp_path / "s", KEY, shard_items=2)
    more = pictures(tmp_path / "a", [7, 3, 6, 3, 0])
    store = extract_features(more, encode, tmp_path / "s", KEY, shard_items=2)
    assert encode.paths == [f"{k}.png" for k in (0, 1, 2, 3, 4, 7, 6)]
    assert colors(store, more) == [7, 3, 6, 3, 0]
    assert len(store) == 7


def test_a_store_that_was_opened_shows_what_it_held_then(tmp_path):
    records = pictures(tmp_path / "a", range(8))
    before = extract_features(records[:3], mean_colors, tmp_path / "s", KEY, shard_items=2)
    extract_features(records, mean_colors, tmp_path / "s", KEY, shard_items=2)
    assert len(before) == 3
    assert colors(before, records[:3]) == [0, 1, 2]
    assert before.find(records[5]) is None


def test_files_that_were_moved_or_touched_are_found_by_their_content(tmp_path):
    encode = Counting()
    extract_features(pictures(tmp_path / "a", range(3)), encode, tmp_path / "s", KEY)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "1.png").write_bytes(image_bytes((9, 0, 0)))
    records = records_of(tmp_path / "b", range(3))
    store = extract_features(records, encode, tmp_path / "s", KEY)
    assert encode.paths == ["0.png", "1.png", "2.png", "1.png"]
    assert colors(store, records) == [0, 9, 2]


def test_a_picture_that_changes_while_it_is_encoded_is_refused(tmp_path):
    records = pictures(tmp_path / "a", range(3))

    def changing(batch):
        (tmp_path / "a" / "1.png").write_bytes(image_bytes((9, 0, 0)))
        return mean_colors(batch)

    with pytest.raises(StateMismatchError, match=r"those of '1' \(.*1\.png\) changed"):
        extract_features(records, changing, tmp_path / "s", KEY)
    assert colors(extract_features(records, mean_colors, tmp_path / "s", KEY), records) == [0, 9, 2]


def test_features_in_32_bits_are_kept_to_the_last(tmp_path):
    records = pictures(tmp_path / "a", range(3))
    value = np.array([1 / 3], np.float32)
    store = extract_features(
        records, lambda batch: [value] * len(batch), tmp_path / "s", KEY, dtype="float32"
    )
    assert store[0].dtype == np.float32
    assert store[0] == value


def test_more_shards_than_files_may_be_open_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("weft.data.features.store._OPEN_SHARDS", 2)
    records = pictures(tmp_path / "a", range(9))
    store = extract_features(records, mean_colors, tmp_path / "s", KEY, shard_items=1)
    assert colors(store, records) == list(range(9))
    assert len(store._open) <= 2


def test_the_second_extraction_says_at_once_who_is_at_work_and_waits(tmp_path, caplog):
    records = pictures(tmp_path / "a", range(3))
    (tmp_path / "s").mkdir()
    done, encode = [], Counting()
    with held(tmp_path / "s" / LOCK, "The store"), caplog.at_level(logging.WARNING):
        other = threading.Thread(
            target=lambda: done.append(extract_features(records, encode, tmp_path / "s", KEY))
        )
        other.start()
        other.join(0.5)
        assert other.is_alive()
        assert not encode.paths
        assert "in use by process" in caplog.text
        assert "Waiting for it" in caplog.text
    other.join(30)
    assert colors(done[0], records) == [0, 1, 2]
    assert caplog.text.count("Waiting for it") == 1


def test_a_whole_store_is_read_while_another_extraction_adds_to_it(tmp_path):
    records = pictures(tmp_path / "a", range(3))
    extract_features(records, mean_colors, tmp_path / "s", KEY)
    with held(tmp_path / "s" / LOCK, "The store"):
        assert colors(extract_features(records, mean_colors, tmp_path / "s", KEY), records) == [0, 1, 2]


def race(folder, barrier, first, found):
    for repeat in range(20):
        barrier.wait(60)
        encode = Counting()
        records = records_of(folder / "a", range(first, first + 6))
        store = extract_features(records, encode, folder / f"s{repeat}", KEY, batch_size=1, shard_items=2)
        found.put((repeat, colors(store, records) == list(range(first, first + 6)), len(encode.paths)))


@pytest.mark.slow
@pytest.mark.parametrize("second", [0, 3], ids=["the same pictures", "some of the same pictures"])
def test_two_extractions_at_once_encode_every_picture_once(tmp_path, second):
    pictures(tmp_path / "a", range(9))
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=race, args=(tmp_path, barrier, first, found), daemon=True)
        for first in (0, second)
    ]
    for each in both:
        each.start()
    told = [found.get(timeout=300) for _ in range(40)]
    for each in both:
        each.join(60)
        assert each.exitcode == 0
    assert all(right for _, right, _ in told)
    for repeat in range(20):
        assert sum(count for number, _, count in told if number == repeat) == 6 + second
        assert len(FeatureStore(tmp_path / f"s{repeat}", sample=9)) == 6 + second
        assert not (tmp_path / f"s{repeat}" / LOCK).exists()


def first_version(folder, weights):
    """A store as the first version wrote it."""
    folder.mkdir()
    rows = np.arange(10, dtype=np.float16).reshape(5, 2)
    for number, part in enumerate((rows[:3], rows[3:])):
        np.save(folder / f"features-{number:05d}.npy", part)
    np.save(folder / "checksums.npy", np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32))
    (folder / "ids.json").write_text(json.dumps([f"n{k}" for k in range(5)]))
    index = {
        "version": 1,
        "key": {"encoder": "e", "weights": weights, "transform": "imported", "data": "d"},
        "ragged": False,
        "item_shape": [2],
        "count": 5,
        "starts": [0, 3],
        "bytes": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
    }
    (folder / "index.json").write_text(json.dumps(index))
    return rows


def test_imported_stores_of_the_first_version_are_read_and_extracted_ones_refused(tmp_path):
    rows = first_version(tmp_path / "imported", "imported")
    store = FeatureStore(tmp_path / "imported", sample=5)
    assert store.ids == [f"n{k}" for k in range(5)]
    assert np.array_equal(store.get("n4"), rows[4])
    assert store.find(MediaRef("deep/n3.jpg", FolderStore("/nowhere"))) == 3
    first_version(tmp_path / "own", "0123")
    with pytest.raises(StateMismatchError, match="went by paths, which two pictures may share"):
        FeatureStore(tmp_path / "own")
