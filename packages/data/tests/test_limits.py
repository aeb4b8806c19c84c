"""What opens to more than its limit is refused with a message, before the memory is taken; nothing is run."""

import gzip
import io
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import EpsImagePlugin, Image

from weft.data import MediaRef, load_dataset
from weft.data.errors import CorruptMediaError, InvalidArgumentError
from weft.data.media import images
from weft.data.media.images import FORMATS, decode_image
from weft.data.media.transforms import ImageTransform
from weft.data.media.video import read_frames
from weft.data.records.source import StoredFile
from weft.data.sources.folders import FolderStore
from weft.data.sources.limits import UNPACKED_MIB, check_unpacked, limit
from weft.data.sources.opening import open_store
from weft.data.testing import image_bytes, zip_bytes

ZEROS = bytes(3 * 2**20)


def jpeg_that_claims(width: int, height: int) -> bytes:
    """A small JPEG whose header states another size."""
    data = image_bytes(kind="JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def png_that_claims(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = image_bytes()
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


@pytest.mark.parametrize("fast", [True, False], ids=["simplejpeg", "pillow"])
@pytest.mark.parametrize("make", [jpeg_that_claims, png_that_claims], ids=["jpeg", "png"])
def test_a_picture_of_400_megapixels_is_refused_before_it_is_decoded(make, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    with pytest.raises(
        CorruptMediaError, match=r"a\.jpg must have at most 178,956,970 pixels.*WEFT_MAX_IMAGE_PIXELS"
    ):
        decode_image(make(20_000, 20_000), name="a.jpg")


def test_the_limit_of_pixels_is_a_setting(monkeypatch):
    monkeypatch.setenv("WEFT_MAX_IMAGE_PIXELS", "95")
    with pytest.raises(CorruptMediaError, match="at most 95 pixels, but has 12 x 8"):
        decode_image(image_bytes())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setenv("WEFT_MAX_IMAGE_PIXELS", "96")
    assert decode_image(image_bytes()).size == (12, 8)


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
def test_a_limit_is_a_positive_whole_number(value, monkeypatch):
    monkeypatch.setenv(UNPACKED_MIB, value)
    with pytest.raises(InvalidArgumentError, match=f"`{UNPACKED_MIB}` must be a positive whole number"):
        limit(UNPACKED_MIB)


def test_a_narrow_picture_does_not_grow_without_bound():
    narrow = Image.new("RGB", (10_000, 1))
    with pytest.raises(
        CorruptMediaError, match=r"one of 10000 x 1 has 2240000 x 224.*WEFT_MAX_RESIZED_PIXELS"
    ):
        ImageTransform()(narrow)
    assert ImageTransform(shape="square")(narrow).shape == (3, 224, 224)


def test_large_pictures_that_do_not_grow_are_within_the_limit(monkeypatch):
    monkeypatch.setenv("WEFT_MAX_RESIZED_PIXELS", "10")
    assert ImageTransform(size=4, crop=None)(Image.new("RGB", (12, 8))).shape == (3, 4, 6)


@pytest.mark.parametrize(
    "text",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", b"\xd7\xcd\xc6\x9a" + bytes(40)],
    ids=["postscript", "wmf"],
)
def test_no_picture_is_handed_to_another_program(text, monkeypatch):
    def run(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    with pytest.raises(
        CorruptMediaError, match=rf"cat\.png must be a whole image \({', '.join(FORMATS)}\), but is not"
    ):
        decode_image(text, name="cat.png")


@pytest.mark.parametrize(
    "kind", ["AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"]
)
def test_the_formats_of_pictures_are_read(kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this build of Pillow has no {kind}")
    made = np.asarray(decode_image(image_bytes(size=(16, 16), kind=kind)), np.int16)
    assert np.abs(made - (200, 30, 30)).max() < 12


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n",
        "\ufeff<MPD></MPD>",
    ],
    ids=["concat", "hls", "dash"],
)
def test_a_video_that_is_a_list_of_other_files_is_refused(text, tmp_path):
    (tmp_path / "v.mp4").write_text(text)
    with pytest.raises(CorruptMediaError, match=r"v\.mp4 must be a whole video, but is a text"):
        read_frames(MediaRef("v.mp4", FolderStore(str(tmp_path)), "video"), 2)


def packed_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", content)
    return stream.getvalue()


def packed_tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"), [("a.zip", packed_zip), ("a.tar.gz", packed_tar)], ids=["zip", "tar.gz"]
)
def test_an_archive_opens_to_so_much_and_no_more(name, pack, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(pack(ZEROS))
    assert open_store(tmp_path / name).read("a.json") == ZEROS
    monkeypatch.setenv(UNPACKED_MIB, "2")
    (tmp_path / f"again.{name}").write_bytes(pack(ZEROS))
    with pytest.raises(
        CorruptMediaError, match=r"must open to at most 2 MiB or 100 times its size, but .* 3,14"
    ):
        open_store(tmp_path / f"again.{name}").read("a.json")


def test_a_zip_that_lies_about_its_packed_size_is_held_to_that_of_the_archive(tmp_path, monkeypatch):
    data = bytearray(packed_zip(ZEROS))
    entry = data.index(b"PK\x01\x02")
    data[entry + 20 : entry + 24] = struct.pack("<I", 2**31)
    (tmp_path / "a.zip").write_bytes(data)
    monkeypatch.setenv(UNPACKED_MIB, "1")
    with pytest.raises(CorruptMediaError, match="must open to at most 1 MiB"):
        open_store(tmp_path / "a.zip").read("a.json")


def test_a_gzip_file_opens_to_so_much_and_no_more(tmp_path, monkeypatch):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(ZEROS))
    file = StoredFile(FolderStore(str(tmp_path)), "a.json.gz")
    assert file.read() == ZEROS
    monkeypatch.setenv(UNPACKED_MIB, "1")
    with pytest.raises(CorruptMediaError, match=r"a\.json\.gz must open to at most 1 MiB"):
        file.read()


def test_a_table_of_one_value_repeated_opens_to_so_much_and_no_more(tmp_path, monkeypatch):
    table = arrow.table(
        {"image": arrow.array(["a.png"]).dictionary_encode().take(arrow.array(np.zeros(300_000, int)))}
    )
    parquet.write_table(table, tmp_path / "train.parquet", compression="zstd")
    monkeypatch.setenv(UNPACKED_MIB, "1")
    with pytest.raises(CorruptMediaError, match=r"train\.parquet must open to at most 1 MiB"):
        load_dataset("table", tmp_path, "train", columns={"question": "image"})


def test_what_is_large_when_packed_may_be_large_when_open():
    check_unpacked(100 * 2**30, 2**30, "a.zip")
    with pytest.raises(CorruptMediaError, match=re.escape("1,048,576 bytes open to 1,073,741,824 or more")):
        check_unpacked(2**30, 2**20, "a.zip")


def test_an_encrypted_member_is_named(tmp_path):
    data = bytearray(zip_bytes({"a.json": "{}"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(
        CorruptMediaError, match=r"'a\.json' of .*a\.zip is encrypted. Unpack the archive with its password"
    ):
        open_store(tmp_path / "a.zip").read("a.json")


def test_a_packing_that_python_does_not_know_is_named(tmp_path):
    data = bytearray(zip_bytes({"a.json": "{}"}))
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(mark) + place] = 9
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(CorruptMediaError, match="packed in a way that Python does not know"):
        open_store(tmp_path / "a.zip").read("a.json")


@pytest.mark.parametrize("name", ["a.zip", "a.json.gz"])
def test_a_damaged_stream_is_named(name, tmp_path):
    data = bytearray(packed_zip(b"abc" * 999) if name == "a.zip" else gzip.compress(b"abc" * 999))
    place = 40 if name == "a.zip" else 14
    data[place : place + 6] = b"\xff" * 6
    (tmp_path / name).write_bytes(data)
    store = open_store(tmp_path / "a.zip") if name == "a.zip" else FolderStore(str(tmp_path))
    with pytest.raises(CorruptMediaError, match=re.escape(name)):
        Path(StoredFile(store, "a.json" if name == "a.zip" else name).read().decode())


def test_a_zip_with_a_member_without_a_name_is_named(tmp_path):
    data = bytearray(zip_bytes({"a": "{}"}))
    place = data.index(b"PK\x01\x02")
    data[place + 28 : place + 30] = b"\0\0"
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(CorruptMediaError, match=r"a\.zip is damaged"):
        list(open_store(tmp_path / "a.zip").names())
