import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weft.data.errors import InvalidArgumentError
from weft.data.media.augment import OPERATIONS, RandAugment, RandomResizedCrop, flip, names_a_side

GOLDEN = Path(__file__).parent / "golden" / "randaugment.png"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is left of the cup?", True),
        ("the RIGHT image", True),
        ("the leftmost box", True),
        ("a bright sunset", False),
        ("leftovers in a copyright notice", False),
    ],
)
def test_sides_are_whole_words(text, expected):
    assert names_a_side(text) is expected


def test_a_flip_never_touches_a_text_that_names_a_side():
    assert flip(PICTURE, "what is on the left?", random.Random(0), 1.0) is PICTURE
    mirrored = np.asarray(flip(PICTURE, "what is bright?", random.Random(0), 1.0))
    np.testing.assert_array_equal(mirrored, np.asarray(PICTURE)[:, ::-1])
    assert flip(PICTURE, "", random.Random(0), 0.0) is PICTURE


def test_the_text_does_not_shift_later_draws():
    first, second = random.Random(5), random.Random(5)
    flip(PICTURE, "left", first)
    flip(PICTURE, "bright", second)
    assert first.random() == second.random()


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (400, 10), (10, 400), (1, 1)])
def test_crops_lie_inside_and_have_the_size(size):
    crop = RandomResizedCrop(size=16)
    for seed in range(30):
        left, top, right, bottom = crop.box(size, random.Random(seed))
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
    assert crop(Image.new("RGB", size), random.Random(0)).size == (16, 16)


def test_crops_keep_the_stated_share_and_shape():
    crop = RandomResizedCrop(scale=(0.25, 0.5))
    for seed in range(50):
        left, top, right, bottom = crop.box((300, 300), random.Random(seed))
        assert 0.24 < (right - left) * (bottom - top) / 90_000 < 0.51
        assert 0.74 < (right - left) / (bottom - top) < 1.35


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_keeps_size_and_mode(name):
    changed = OPERATIONS[name](PICTURE, 0.5, -0.5)
    assert (changed.size, changed.mode) == (PICTURE.size, "RGB")


def test_the_same_seed_gives_the_same_image():
    augment = RandAugment(operations=3, magnitude=7)
    first, second, other = (np.asarray(augment(PICTURE, random.Random(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_sides_can_be_kept(monkeypatch):
    for name in ("rotate", "shear_x", "translate_x"):
        monkeypatch.setitem(OPERATIONS, name, lambda *_: pytest.fail("moved sideways"))
    for seed in range(30):
        RandAugment(operations=4, keep_sides=True)(PICTURE, random.Random(seed))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(scale=(0.5, 0.2)), "`scale` must be two shares"),
        (lambda: RandomResizedCrop(ratio=(0.0, 1.0)), "`ratio` two positive numbers"),
        (lambda: RandAugment(magnitude=11), r"`magnitude` must lie in 0\.\.10"),
        (lambda: RandAugment(operations=-1), "`operations` must not be negative"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_gives_the_pixels_of_torchvision(name):
    # The sheet and its picture: golden/randaugment.py, run with torchvision 0.28.0 and Pillow 13.0.0.
    sheet = np.asarray(Image.open(GOLDEN))
    tiles = dict(zip(OPERATIONS, np.split(sheet, len(OPERATIONS), axis=1), strict=True))
    changed = OPERATIONS[name](Image.fromarray(tiles["identity"]), 0.5, 0.5)
    np.testing.assert_allclose(np.asarray(changed, int), tiles[name].astype(int), atol=1)
    assert name == "identity" or (tiles[name] != tiles["identity"]).any()
