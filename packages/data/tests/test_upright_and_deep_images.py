"""Pictures stand upright as their Exif says, and values of more than 8 bits are scaled, not cut off."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from weft.data import Classify, MediaRef
from weft.data.errors import CorruptMediaError
from weft.data.media import images
from weft.data.media.images import decode_image, to_rgb
from weft.data.records.contact_sheet import contact_sheet

FORMATS = {
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
}


def corners() -> Image.Image:
    """Four colours, so that no two orientations look alike."""
    image = Image.new("RGB", (64, 32), (250, 250, 250))
    for place, color in {(0, 0): (250, 0, 0), (32, 0): (0, 250, 0), (0, 16): (0, 0, 250)}.items():
        image.paste(color, (*place, place[0] + 32, place[1] + 16))
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def oriented(orientation: int, kind: str, **options: Any) -> bytes:
    """What a camera stores that was held so: the picture turned back, and the tag that says how."""
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    stored = corners()
    stored.getexif()[ExifTags.Base.Orientation] = back
    stored = ImageOps.exif_transpose(stored)
    assert stored is not None
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(stored, kind, exif=exif, **options)


@pytest.mark.parametrize("fast", [True, False], ids=["simplejpeg", "pillow"])
@pytest.mark.parametrize(("kind", "options"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_as_its_orientation_says(orientation, kind, options, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    elif kind == "JPEG":
        pytest.importorskip("simplejpeg")
    made = decode_image(oriented(orientation, kind, **options))
    assert made.size == (64, 32)
    distance = np.abs(np.asarray(made, np.int16) - np.asarray(corners(), np.int16))
    # Chroma at the edges of a JPEG is not exact.
    assert np.median(distance) <= 2
    assert (distance > 60).mean() < 0.05
    drafted = decode_image(oriented(orientation, kind, **options), draft=16)
    assert drafted.width == 2 * drafted.height


def test_the_quick_decoder_turns_as_pillow_does(monkeypatch):
    pytest.importorskip("simplejpeg")
    data = [oriented(k, "JPEG") for k in range(1, 9)]
    quick = [np.asarray(decode_image(one)) for one in data]
    monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    for one, again in zip(quick, data, strict=True):
        np.testing.assert_array_equal(one, np.asarray(decode_image(again)))


def test_a_contact_sheet_shows_pictures_upright():
    sheets = []
    for data in (encoded(corners(), "PNG"), oriented(6, "PNG")):
        record = Classify(id="1", image=MediaRef.from_bytes(data), label=0, class_name="cat")
        sheets.append(np.asarray(contact_sheet([record])))
    np.testing.assert_array_equal(*sheets)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"],
    ids=["no header", "no table", "cut short"],
)
def test_exif_that_does_not_read_states_no_orientation(exif):
    assert decode_image(encoded(corners(), "JPEG", exif=exif)).size == (64, 32)


RAMP = np.arange(256, dtype=np.int64).reshape(16, 16)


def tiff(pixels: Any, **tags: int) -> bytes:
    return encoded(
        Image.fromarray(pixels), "TIFF", tiffinfo={int(name[1:]): value for name, value in tags.items()}
    )


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray((RAMP * 257).astype(np.uint16)), "PNG"),
        tiff((RAMP * 257).astype(np.uint16)),
        encoded(Image.fromarray((RAMP * 257).astype(np.uint16)), "PPM"),
        encoded(Image.fromarray((RAMP * 257).astype(np.uint16)), "JPEG2000", irreversible=False),
        tiff((RAMP * (2**31 - 1) // 255).astype(np.int32)),
        tiff((RAMP / 255).astype(np.float32)),
    ],
    ids=["16-bit png", "16-bit tiff", "16-bit pgm", "16-bit jpeg 2000", "32-bit tiff", "float tiff"],
)
def test_deep_values_are_scaled_by_the_range_of_their_type(data):
    made = np.asarray(decode_image(data), np.int64)
    assert np.abs(made - RAMP[..., None]).max() <= 1
    assert (made[..., 0] == made[..., 2]).all()


def test_every_16_bit_value_is_rounded_to_the_nearest_level():
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    made = np.asarray(to_rgb(Image.fromarray(values)))[..., 0]
    np.testing.assert_array_equal(made, np.rint(values / 257).astype(np.uint8))


def test_white_may_be_zero():
    data = tiff((RAMP * 257).astype(np.uint16), t262=0)
    np.testing.assert_array_equal(np.asarray(decode_image(data))[..., 0], 255 - RAMP)


def test_a_transparent_level_of_16_bits_is_composited():
    data = encoded(Image.fromarray((RAMP * 257).astype(np.uint16)), "PNG", transparency=257 * 200)
    made = np.asarray(decode_image(data, background=(1, 2, 3)))
    assert tuple(made[200 // 16, 200 % 16]) == (1, 2, 3)
    assert tuple(made[0, 1]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(RAMP.astype(np.float32)), r"reach from 0.0 to 255.0, where their type gives 0 to 1"),
        (tiff(np.full((2, 2), -0.5, np.float32)), "reach from -0.5"),
        (tiff(np.full((2, 2), np.nan, np.float32)), "reach from nan"),
        (tiff((RAMP - 9).astype(np.int32)), "reach from -9"),
        (tiff((RAMP * 257).astype(np.int32)), "reach to 65535, of 2147483647 that their type has room for"),
    ],
    ids=["float to 255", "negative float", "nan", "negative integer", "16 bits in 32"],
)
def test_values_without_a_known_range_are_refused_by_name(data, message):
    with pytest.raises(
        CorruptMediaError, match=rf"scans/7.tif must hold values whose range is known.*{message}"
    ):
        decode_image(data, name="scans/7.tif")


def test_integers_of_nowhere_have_no_range():
    with pytest.raises(CorruptMediaError, match="they are of mode 'I'"):
        to_rgb(Image.new("I", (2, 2), 7))
