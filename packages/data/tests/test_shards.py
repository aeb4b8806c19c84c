import json
import pickle
import random
import threading
import time
from dataclasses import fields, replace

import fsspec
import pytest

from weft.data import (
    Caption,
    Classify,
    ImageQA,
    MediaRef,
    PairBool,
    Retrieval,
    VideoMC,
    VideoQA,
    load_dataset,
)
from weft.data.errors import (
    CorruptMediaError,
    InvalidArgumentError,
    MissingFileError,
    StateMismatchError,
    UnknownNameError,
)
from weft.data.records.record_set import RecordSet
from weft.data.shards.convert import convert
from weft.data.shards.opening import open_shards
from weft.data.shards.parquet import ShardedRecords
from weft.data.sources.store import BytesStore
from weft.data.testing import image_bytes, write_tree


def image(number):
    return MediaRef.from_bytes(image_bytes((number % 256, 0, 0)), f"{number}.png")


def numbered(count, name="toy", first=0):
    """Records of pictures whose colours are their numbers from `first`, under names that count from 0."""
    pictures = [
        replace(image(k), store=BytesStore({f"{k}.png": image(k + first).read()})) for k in range(count)
    ]
    records = [
        Classify(id=str(k), image=pictures[k], label=k % 3, class_name=f"c{k % 3}", extra={"k": k})
        for k in range(count)
    ]
    return RecordSet(name, "train", "classify", records)


VIDEO = MediaRef.from_bytes(b"v", "v.mp4", "video")
EVERY_KIND = [
    ImageQA(id="1", image=image(1), image_id="i", question="?", answers=("a", "b"), soft_targets={"a": 0.3}),
    PairBool(id="2", images=(image(1), image(2)), group_id="g", sentence="s", label=None),
    Caption(id="3", media=image(3), media_id="m", captions=("ä", "日本"), language="ja"),
    Retrieval(id="4", media=image(4), media_id="m", text="t", text_id="t"),
    Classify(id="5", image=image(5), label=1, class_name="c", domain="d"),
    VideoMC(
        id="6",
        video=MediaRef("v", VIDEO.store, "video", 1.5, 2.5),
        media_id="v",
        question="?",
        options=("a",),
    ),
    VideoQA(id="7", video=VIDEO, media_id="v", question="?", answers=("x",)),
]


@pytest.mark.parametrize("record", EVERY_KIND, ids=lambda record: record.record_type)
def test_every_kind_of_record_comes_back_equal(tmp_path, record):
    media = [ref for ref in record.media_refs() if ref.path != "v"]
    converted = convert(
        RecordSet("s", "train", record.record_type, [record]), tmp_path / "out", embed_media=bool(media)
    )
    back = converted[0]
    assert type(back) is type(record)
    for field in fields(record):
        if field.name not in ("image", "images", "media", "video"):
            assert getattr(back, field.name) == getattr(record, field.name)
    for old, new in zip(record.media_refs(), back.media_refs(), strict=True):
        assert (new.path, new.kind, new.start, new.end) == (old.path, old.kind, old.start, old.end)
    assert [ref.read() for ref in back.media_refs() if ref.path != "v"] == [ref.read() for ref in media]


def test_positions_cross_shards_and_row_groups(tmp_path):
    shards = convert(numbered(53), tmp_path / "out", rows_per_shard=20, group_rows=8)
    assert [shard.rows for shard in shards.shards] == [20, 20, 13]
    assert [record.id for record in shards] == [str(k) for k in range(53)]
    assert shards[-1].id == "52"
    assert [record.id for record in shards[50:]] == ["50", "51", "52"]
    assert shards[39].image.image().getpixel((0, 0)) == (39, 0, 0)
    assert [rows for _, _, rows in shards.groups()] == [8, 8, 4, 8, 8, 4, 8, 5]
    with pytest.raises(IndexError, match=r"index must lie in 0\.\.52, but is 53"):
        shards[53]
    shards.verify()


def test_shards_open_as_a_record_set_from_a_folder_and_a_url(tmp_path):
    original = numbered(12)
    convert(original, tmp_path / "out", rows_per_shard=5, group_rows=2)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "out"), "/shards-out", recursive=True)
    for root in (tmp_path / "out", "memory://shards-out"):
        records = open_shards(root)
        assert records.class_names == ["c0", "c1", "c2"]
        assert records.fingerprint() == original.fingerprint()
        assert pickle.loads(pickle.dumps(records))[7].extra == {"k": 7}
    memory.rm("/shards-out", recursive=True)


def test_threads_read_one_data_set_at_once(tmp_path):
    convert(numbered(80), tmp_path, rows_per_shard=40, group_rows=4)
    read = []

    def draw(seed):
        records, order = open_shards(tmp_path), random.Random(seed)
        drawn = [order.randrange(80) for _ in range(200)]
        read.append([records[k].image.image().getpixel((0, 0))[0] for k in drawn] == drawn)

    threads = [threading.Thread(target=draw, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert read == [True] * len(threads)


def test_media_may_stay_outside(tmp_path):
    root = write_tree(tmp_path / "root", {f"train/a/{k}.png": image_bytes((k, 0, 0)) for k in range(3)})
    records = load_dataset("image_folder", root, "train")
    convert(records, tmp_path / "out", embed_media=False)
    write_tree(tmp_path / "out", {"train/a/2.png": image_bytes((2, 0, 0))})
    assert ShardedRecords(tmp_path / "out")[2].image.image().getpixel((0, 0)) == (2, 0, 0)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path, monkeypatch):
    import weft.data.shards.convert as module

    convert(numbered(20), tmp_path / "whole", rows_per_shard=4)
    written = []

    def dying(path, data):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        original(path, data)

    original = module.write_bytes
    monkeypatch.setattr(module, "write_bytes", dying)
    with pytest.raises(KeyboardInterrupt):
        convert(numbered(20), tmp_path / "cut", rows_per_shard=4)
    assert not (tmp_path / "cut" / "index.json").exists()
    monkeypatch.setattr(module, "write_bytes", original)
    with pytest.raises(
        StateMismatchError, match=r"unfinished run of the same conversion, but .* holds another"
    ):
        convert(numbered(20, "other"), tmp_path / "cut", rows_per_shard=4)
    with pytest.raises(StateMismatchError, match="holds another"):
        convert(numbered(20, first=1), tmp_path / "cut", rows_per_shard=4)
    (tmp_path / "cut" / ".shard-00003.parquet.0.part.parquet").write_bytes(b"what SIGKILL leaves of a file")
    convert(numbered(20), tmp_path / "cut", rows_per_shard=4)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_memory_stays_flat_over_a_million_records(tmp_path):
    psutil = pytest.importorskip("psutil")
    convert(numbered(2_000), tmp_path, rows_per_shard=2_000, group_rows=500)
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "shards": index["shards"] * 500}))
    memory = []
    for position, _ in enumerate(open_shards(tmp_path)):
        if position % 100_000 == 99_999:
            memory.append(psutil.Process().memory_info().rss)
    assert position == 999_999
    assert max(memory) / min(memory) < 1.05


@pytest.mark.parametrize(
    ("records", "options", "error", "message"),
    [
        (numbered(0), {}, InvalidArgumentError, "`records` must hold at least one record"),
        (numbered(1), {"group_rows": 0}, InvalidArgumentError, "must be positive, but are 2000, 0 and 2"),
        (numbered(1), {"engine": "rya"}, UnknownNameError, "Unknown engine: 'rya'. Did you mean 'ray'"),
    ],
)
def test_impossible_conversions_are_refused(tmp_path, records, options, error, message):
    with pytest.raises(error) as caught:
        convert(records, tmp_path / "out", **options)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_never_written_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StateMismatchError, match="holds something else"):
        convert(numbered(2), tmp_path)


def test_a_folder_without_index_or_of_another_version_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"index\.json does not exist"):
        ShardedRecords(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(StateMismatchError, match="of version 1"):
        ShardedRecords(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    shards = convert(numbered(8), tmp_path / "out", rows_per_shard=4)
    (tmp_path / "out" / "shard-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptMediaError, match=r"shard-00001\.parquet must match its checksum"):
        shards.verify()
    with pytest.raises(CorruptMediaError, match=r"shard-00001\.parquet must be a whole Parquet file"):
        shards[5]


def test_an_index_of_ten_million_rows_opens_in_a_second(tmp_path):
    shard = {"rows": 2_000, "bytes": 1, "sha256": "0" * 64}
    shards = [{"file": f"shard-{k:05d}.parquet", **shard} for k in range(5_000)]
    index = {"version": 1, "name": "n", "split": "s", "task": "classify", "group_rows": 64, "shards": shards}
    (tmp_path / "index.json").write_text(json.dumps(index))
    start = time.process_time()
    records = open_shards(tmp_path)
    assert len(records) == 10_000_000
    assert time.process_time() - start < 1.0


def test_a_shard_opens_to_so_much_and_no_more(tmp_path, monkeypatch):
    empty = MediaRef.from_bytes(bytes(3 * 2**20), "0.png")
    records = RecordSet("toy", "train", "classify", [Classify(id="0", image=empty, label=0, class_name="c")])
    convert(records, tmp_path / "shards")
    assert len(ShardedRecords(tmp_path / "shards")[0].image.read()) == 3 * 2**20
    convert(records, tmp_path / "again")
    monkeypatch.setenv("WEFT_MAX_UNPACKED_MIB", "1")
    with pytest.raises(CorruptMediaError, match=r"shard-00000\.parquet must open to at most 1 MiB"):
        ShardedRecords(tmp_path / "again")[0]
