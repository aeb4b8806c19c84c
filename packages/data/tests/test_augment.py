import random

import numpy as np
import pytest

from weft.data.errors import InvalidArgumentError
from weft.data.media.augment import Augmentation

IMAGE = np.arange(2 * 5 * 4, dtype=np.float32).reshape(2, 5, 4)


def test_nothing_asked_is_nothing_done():
    assert np.array_equal(Augmentation()(IMAGE, random.Random(0)), IMAGE)


def test_a_shift_moves_the_image_and_repeats_its_edge():
    seen = set()
    for seed in range(60):
        moved = Augmentation(shift=1)(IMAGE, random.Random(seed))
        assert moved.shape == IMAGE.shape
        assert moved.dtype == IMAGE.dtype
        padded = np.pad(IMAGE, ((0, 0), (1, 1), (1, 1)), mode="edge")
        places = [
            (y, x)
            for y in range(3)
            for x in range(3)
            if np.array_equal(padded[:, y : y + 5, x : x + 4], moved)
        ]
        assert places
        seen.add(places[0])
    assert len(seen) == 9


def test_half_of_the_images_are_mirrored():
    flipped = [
        np.array_equal(Augmentation(flip=True)(IMAGE, random.Random(k)), IMAGE[..., ::-1]) for k in range(200)
    ]
    assert 70 < sum(flipped) < 130


def test_the_same_chance_gives_the_same_image():
    change = Augmentation(shift=2, flip=True)
    assert np.array_equal(change(IMAGE, random.Random(3)), change(IMAGE, random.Random(3)))


def test_a_negative_shift_is_an_error():
    with pytest.raises(InvalidArgumentError, match="`shift` must be a number of pixels"):
        Augmentation(shift=-1)
