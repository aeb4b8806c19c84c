"""Which picture is it? Places tell media apart without opening them, identities also tell what replaced them."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from weft.data import Classify, MediaRef, PairBool, RecordSet, load_dataset
from weft.data.errors import MissingFileError, UnsafePathError
from weft.data.features.identity import content_of, identity_of
from weft.data.scenes.store import MotionStore, SceneStore
from weft.data.sources.archives import ArchiveStore
from weft.data.sources.folders import FolderStore, remote_version
from weft.data.sources.handles import close_handles
from weft.data.sources.opening import open_store
from weft.data.testing import image_bytes

RED, BLUE = image_bytes((255, 0, 0)), image_bytes((0, 0, 255))


def table(path: Path, rows: list[dict]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_embedded_pictures_go_by_their_content(tmp_path):
    table(tmp_path / "train.parquet", [{"left": RED, "right": BLUE, "sentence": "s", "label": True}])
    table(tmp_path / "test.parquet", [{"left": BLUE, "right": BLUE, "sentence": "s", "label": True}])
    options = {"record": "pair_bool", "columns": {"images": ["left", "right"]}}
    (first,), (second,) = (
        load_dataset("table", root=tmp_path, split=s, **options) for s in ("train", "test")
    )
    red, blue = first.images
    assert red.identity != blue.identity
    assert {blue.identity} == {ref.identity for ref in second.images} == {second.images[0].place}
    assert [ref.uri.rsplit("/", 1)[-1] for ref in first.images] == [
        "train.parquet:row-1, image 1",
        "train.parquet:row-1, image 2",
    ]


def test_an_embedded_picture_without_an_id_is_known_by_its_content_across_splits(tmp_path):
    for split, pictures in (("train", [RED, BLUE, RED]), ("test", [BLUE])):
        rows = [{"media": each, "text": f"{k}"} for k, each in enumerate(pictures)]
        table(tmp_path / f"{split}.parquet", rows)
    train, test = (
        load_dataset("table", root=tmp_path, split=split, record="retrieval") for split in ("train", "test")
    )
    ids = [record.media_id for record in train]
    assert ids[0] == ids[2] != ids[1] == test[0].media_id


def test_samples_of_one_name_in_two_tars_are_two_media(tmp_path):
    for name in ("train-0.tar", "train-1.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            for ending, content in (("png", RED), ("txt", b"red")):
                member = tarfile.TarInfo(f"0.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    options = {"record": "retrieval", "columns": {"text": "txt"}}
    one, two = load_dataset("webdataset", root=tmp_path, split="train", **options)
    assert one.media_id != two.media_id
    assert one.media.place != two.media.place


@pytest.mark.parametrize("kind", ["folder", "zip", "memory"])
def test_a_file_that_is_replaced_stays_at_its_place_and_is_another(tmp_path, kind):
    url = f"memory://{tmp_path.name}" if kind == "memory" else str(tmp_path / "data")
    ending = ".zip" if kind == "zip" else ""

    def written(content: bytes) -> MediaRef:
        close_handles()
        if kind == "zip":
            with zipfile.ZipFile(f"{url}.zip", "w") as archive:
                archive.writestr("a.png", content)
        else:
            with fsspec.open(f"{url}/a.png", "wb", auto_mkdir=True) as file:
                file.write(content)
        return MediaRef("a.png", open_store(url + ending))

    first = written(b"one")
    place, identity, content = first.place, first.identity, first.content
    assert (first.place, first.identity, first.content) == (place, identity, content)
    again = written(b"two")
    assert again.place == place
    assert again.identity != identity
    assert again.content != content


def test_a_file_that_keeps_its_size_and_time_is_another_all_the_same(tmp_path):
    (tmp_path / "a.png").write_bytes(b"one")
    ref = MediaRef("a.png", FolderStore(str(tmp_path)))
    before, identity = (tmp_path / "a.png").stat(), ref.identity
    (tmp_path / "b.png").write_bytes(b"two")
    os.utime(tmp_path / "b.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "b.png").replace(tmp_path / "a.png")
    assert ref.identity != identity


def test_a_copy_has_the_content_of_the_file(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(RED)
    one, two = (MediaRef("a.png", FolderStore(str(tmp_path / folder))) for folder in ("one", "two"))
    assert one.identity != two.identity
    assert one.content == two.content == MediaRef.from_bytes(RED).content


def test_archives_tell_members_of_one_name_apart(tmp_path):
    for name in "ab":
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("0.png", RED)
    one, two = (MediaRef("0.png", ArchiveStore(str(tmp_path / f"{name}.zip"))) for name in "ab")
    assert one.place != two.place
    assert one.identity != two.identity


def test_absent_media_of_a_split_are_counted_and_the_first_are_named(tmp_path):
    store, missing = FolderStore(str(tmp_path)), [f"{number}.png" for number in range(5)]
    (tmp_path / "there.png").write_bytes(RED)
    shown = [MediaRef(path, store) for path in ("there.png", "there.png", *missing)]
    records = [Classify(id=str(k), image=ref, label=0, class_name="a") for k, ref in enumerate(shown)]
    split = RecordSet("own", "train", "classify", records)
    assert split[:2].media_fingerprint()
    with pytest.raises(
        MissingFileError, match=r"'own' \(train\) .* 5 of 6 files are not: .*0\.png.* and 2 more\."
    ):
        split.media_fingerprint()


def test_media_that_a_link_leads_out_to_are_refused_when_they_are_sketched(tmp_path):
    (tmp_path / "root" / "own").mkdir(parents=True)
    (tmp_path / "0.png").write_bytes(RED)
    (tmp_path / "root" / "own" / "0.png").symlink_to(tmp_path / "0.png")
    (tmp_path / "root" / "led").symlink_to(tmp_path)
    for path in ("own/0.png", "led/0.png"):
        with pytest.raises(UnsafePathError, match="is a link that leads out of it"):
            FolderStore(str(tmp_path / "root")).sketch(path)
        assert FolderStore(str(tmp_path / "root"), follow_links=True).sketch(path)


def test_spans_and_kinds_of_one_file_are_media_of_their_own(tmp_path):
    store = FolderStore(str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"v")
    refs = [
        MediaRef("a.mp4", store, "video"),
        MediaRef("a.mp4", store, "video", 0.0, 2.0),
        MediaRef("a.mp4", store, "video", 0.0, 3.0),
        MediaRef("a.mp4", store, "image"),
    ]
    for digest in ("place", "identity", "content"):
        assert len({getattr(ref, digest) for ref in refs}) == 4


def test_a_place_needs_no_file_and_an_identity_does():
    ref = MediaRef("a.png", FolderStore("/nowhere"))
    assert ref.place
    for digest in ("identity", "content"):
        with pytest.raises(MissingFileError, match=r"/nowhere/a\.png"):
            getattr(ref, digest)


def test_scenes_that_are_drawn_otherwise_are_other_pictures():
    usual = {"pool": "test", "num_scenes": 3, "seed": 0, "allow_held_out": False}
    stores = [
        SceneStore(**usual),
        SceneStore(**usual, min_objects=4),
        SceneStore(**{**usual, "allow_held_out": True}),
        MotionStore(**usual),
        MotionStore(**usual, num_frames=4),
    ]
    refs = [MediaRef(store.name(0), store) for store in stores]
    assert len({ref.place for ref in refs}) == len({ref.identity for ref in refs}) == 5


def test_what_servers_say_of_a_file_is_read_in_their_own_words():
    said = {"name": "a", "size": 3, "ETag": '"x"', "LastModified": "today"}
    assert remote_version(said) == 'size=3 etag="x" lastmodified=today'
    assert remote_version({"name": "a", "size": 3, "last_modified": "today"}) == "size=3 lastmodified=today"
    assert remote_version({"name": "a", "size": 3}) == ""


def test_a_record_goes_by_all_of_its_media_and_by_its_tag():
    red, blue = MediaRef.from_bytes(RED), MediaRef.from_bytes(BLUE)
    pairs = [
        PairBool(id="1", images=images, group_id="1", sentence="s")
        for images in ((red, blue), (blue, red), (red,))
    ]
    assert len({identity_of(pair) for pair in pairs}) == 3
    assert identity_of(pairs[2]) == identity_of(red) == red.identity == content_of(red)
    assert identity_of(red, "view 1") != identity_of(red) != identity_of(red, "view 2")
