import io
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weft.data import MediaRef
from weft.data.errors import CorruptMediaError, InvalidArgumentError
from weft.data.media import images
from weft.data.media.images import decode_image, to_rgb
from weft.data.media.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    ImageTransform,
    center_crop,
    normalize,
    resize_short_side,
    resize_square,
)
from weft.data.testing import image_bytes


def test_half_transparent_pixels_are_mixed_with_the_background():
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), (0, 0, 255)).getpixel((0, 0)) == (128, 0, 127)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (2, 2))).mode == "RGB"


def test_a_palette_with_a_transparent_entry_is_composited():
    stream = io.BytesIO()
    Image.new("P", (2, 2), 0).save(stream, "PNG", transparency=0)
    assert decode_image(stream.getvalue(), background=(1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_named(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    stream = io.BytesIO()
    noise.save(stream, kind)
    half = stream.getvalue()[: len(stream.getvalue()) // 2]
    with pytest.raises(CorruptMediaError, match=r"a/b.png must be a whole image"):
        decode_image(half, name="a/b.png")


def test_bytes_that_are_no_image_are_named():
    with pytest.raises(CorruptMediaError, match="memory:image must be a whole image"):
        MediaRef.from_bytes(b"text").image()


def jpeg(mode: str, size: tuple[int, int], **options: Any) -> bytes:
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    low = np.random.default_rng(0).integers(0, 255, (5, 7, *channels), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(low, mode).resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(64, 48), (37, 23), (1, 1), (400, 9)], ids=str)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"quality": 95}),
        ("RGB", {"quality": 20, "subsampling": 2}),
        ("RGB", {"quality": 75, "subsampling": 0, "progressive": True}),
        ("RGB", {"quality": 75, "subsampling": 1}),
        ("L", {"quality": 80}),
        ("CMYK", {"quality": 80}),
    ],
    ids=lambda value: str(value),
)
def test_the_quick_decoder_gives_the_pixels_of_pillow(monkeypatch, size, mode, options):
    data = jpeg(mode, size, **options)
    if mode != "CMYK":
        assert images._decode_jpeg(data) is not None
    quick = np.asarray(decode_image(data))
    monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    np.testing.assert_array_equal(quick, np.asarray(decode_image(data)))


def test_real_photographs_decode_to_the_same_pixels(monkeypatch, realdata):
    found = sorted((realdata / "alexeygrigorev+clothing-dataset-small").rglob("*.zip"))
    with zipfile.ZipFile(found[0]) as archive:
        photographs = [archive.read(name) for name in archive.namelist() if name.endswith(".jpg")][:8]
    quick = [np.asarray(decode_image(data)) for data in photographs]
    monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    assert len(quick) == 8
    for one, data in zip(quick, photographs, strict=True):
        np.testing.assert_array_equal(one, np.asarray(decode_image(data)))


def test_draft_decodes_jpeg_smaller_but_never_below_the_size_asked_for():
    data = image_bytes(size=(400, 320), kind="JPEG")
    small = decode_image(data, draft=60)
    assert 60 <= min(small.size) < 320
    assert decode_image(image_bytes(size=(40, 30)), draft=10).size == (40, 30)


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 50), (40, 20)), ((50, 101), (20, 40)), ((20, 20), (20, 20))]
)
def test_short_side_is_exact_and_long_side_rounds_down(size, expected):
    assert resize_short_side(Image.new("RGB", size), 20).size == expected


def test_square_resize_ignores_the_shape():
    assert resize_square(Image.new("RGB", (9, 4)), 6).size == (6, 6)
    image = Image.new("RGB", (6, 6))
    assert resize_square(image, 6) is image


@pytest.mark.parametrize("shape", [(9, 9), (10, 7), (3, 12), (3, 2), (4, 5)])
def test_crops_have_their_size_and_keep_the_middle(shape):
    pixels = np.ones((*shape, 3), np.uint8)
    cut = center_crop(pixels, 5)
    assert cut.shape == (5, 5, 3)
    assert cut[..., 0].sum() == min(shape[0], 5) * min(shape[1], 5)


def test_normalisation_is_the_stated_formula():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    expected = (pixels.astype(np.float64) / 255 - CLIP_MEAN) / CLIP_STD
    result = normalize(pixels, CLIP_MEAN, CLIP_STD)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected.transpose(2, 0, 1), atol=1e-6)


def test_a_transform_gives_channels_first_and_a_fingerprint():
    transform = ImageTransform(size=16, crop=12)
    assert transform(Image.new("L", (40, 20))).shape == (3, 12, 12)
    assert ImageTransform(size=None, crop=None)(Image.new("RGB", (7, 5))).shape == (3, 5, 7)
    assert ImageTransform(size=8, shape="square", crop=None)(Image.new("RGB", (7, 5))).shape == (3, 8, 8)
    assert transform.fingerprint() == ImageTransform(size=16, crop=12).fingerprint()
    assert transform.fingerprint() != ImageTransform(size=16, crop=11).fingerprint()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageTransform(resample="cubic"), "`resample` must be one of"),
        (lambda: ImageTransform(std=(0.0, 1.0, 1.0)), "`std` must be positive"),
        (lambda: resize_square(Image.new("RGB", (2, 2)), 0), "`size` must be a positive number of pixels"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


@pytest.mark.parametrize(("shape", "first"), [((8, 6, 1), 1 * 6 + 0), ((6, 8, 1), 0 * 8 + 1)])
def test_a_crop_that_cannot_be_centred_lies_nearer_to_the_start(shape: tuple[int, ...], first: int) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(shape)
    assert center_crop(pixels, 5)[0, 0, 0] == first
