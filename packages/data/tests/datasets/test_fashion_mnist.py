import gzip
import struct

import numpy as np
import pytest

from weft.data import CorruptMediaError, MissingFileError, load_dataset
from weft.data.testing import DatasetContract, write_tree

PIXELS = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8)


def idx(magic, data, shape):
    return struct.pack(f">{1 + len(shape)}i", magic, *shape) + bytes(data)


class TestFashionMNIST(DatasetContract):
    name = "fashion_mnist"
    count = 3

    def files(self):
        return {
            "data/fashion/train-images-idx3-ubyte.gz": gzip.compress(idx(2051, PIXELS, (3, 28, 28))),
            "data/fashion/train-labels-idx1-ubyte": idx(2049, [9, 0, 3], (3,)),
        }

    def test_pictures_are_cut_from_the_file(self, records):
        assert [record.class_name for record in records] == ["Ankle boot", "T-shirt/top", "Dress"]
        pixels = np.asarray(records[1].image.image())[..., 0]
        np.testing.assert_array_equal(pixels.reshape(-1), PIXELS[784:1568])
        assert list(records[0].image.store.names()) == ["0.png", "1.png", "2.png"]
        with pytest.raises(MissingFileError, match=r"#3\.png"):
            records[0].image.store.read("3.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"\0\0", "must be an idx file with magic number 2051"),
        (
            "train-images-idx3-ubyte",
            idx(2051, PIXELS[:-5], (3, 28, 28)),
            "is cut short: its header promises 3",
        ),
        ("train-labels-idx1-ubyte", idx(2049, [1, 2], (2,)), "must hold one picture per label"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    good = {
        "train-images-idx3-ubyte": idx(2051, PIXELS, (3, 28, 28)),
        "train-labels-idx1-ubyte": idx(2049, [9, 0, 3], (3,)),
    }
    with pytest.raises(CorruptMediaError, match=message):
        load_dataset("fashion_mnist", write_tree(tmp_path, {**good, name: content}), "train")


def test_the_real_sprite_holds_ninety_pictures_per_class(realdata):
    records = load_dataset("fashion_mnist", realdata / "zalandoresearch+fashion-mnist", "sprite")
    assert len(records) == 900
    assert {sum(record.label == label for record in records) for label in range(10)} == {90}
    assert len({record.image.read() for record in records}) == 900


def test_the_halves_of_the_sprite_share_no_picture_and_hold_forty_five_of_each_class(realdata):
    root = realdata / "zalandoresearch+fashion-mnist"
    halves = [load_dataset("fashion_mnist", root, f"sprite_{name}") for name in ("train", "test")]
    for half in halves:
        assert {sum(record.label == label for record in half) for label in range(10)} == {45}
    assert len({record.image.path for half in halves for record in half}) == 900
