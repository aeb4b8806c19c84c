import random

import numpy as np
import pytest

from weft.data.errors import InvalidArgumentError
from weft.data.media.shift import RandomShift

IMAGE = np.arange(2 * 5 * 4, dtype=np.float32).reshape(2, 5, 4)


def test_nothing_asked_is_nothing_done():
    assert np.array_equal(RandomShift()(IMAGE, random.Random(0)), IMAGE)


def test_every_shift_occurs_and_repeats_the_edge():
    padded = np.pad(IMAGE, ((0, 0), (1, 1), (1, 1)), mode="edge")
    expected = {padded[:, y : y + 5, x : x + 4].tobytes() for y in range(3) for x in range(3)}
    moved = [RandomShift(1)(IMAGE, random.Random(seed)) for seed in range(80)]
    assert {image.tobytes() for image in moved} == expected
    assert all(image.shape == IMAGE.shape and image.dtype == IMAGE.dtype for image in moved)


def test_the_same_generator_gives_the_same_image():
    shift = RandomShift(2)
    assert np.array_equal(shift(IMAGE, random.Random(3)), shift(IMAGE, random.Random(3)))


def test_a_negative_shift_is_an_error():
    with pytest.raises(InvalidArgumentError, match="`pixels` must be 0 or more"):
        RandomShift(-1)
