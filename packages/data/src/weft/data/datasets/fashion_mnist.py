"""Fashion-MNIST: 28-pixel grey images of clothes in ten classes; official idx files or the sprite."""

import hashlib
import io
import struct
from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.errors import CorruptMediaError, MissingFileError
from weft.data.media.reference import MediaRef
from weft.data.records.classify import Classify
from weft.data.records.source import Source, StoredFile
from weft.data.sources.store import Store

CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SIDE = 28
GRID = 30
_PREFIX = {"train": "train", "test": "t10k"}
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049


class _Tiles(Store):
    """Equal grey tiles cut from one buffer, given out as PNG files named `k.png`."""

    def __init__(self, pixels: bytes, label: str) -> None:
        self._pixels, self._label = pixels, label

    def read(self, path: str) -> bytes:
        from PIL import Image

        stream = io.BytesIO()
        Image.frombytes("L", (SIDE, SIDE), self._tile(path)).save(stream, "PNG")
        return stream.getvalue()

    def content(self, path: str) -> str:
        return f"tile {hashlib.sha256(self._tile(path)).hexdigest()}"

    def _tile(self, path: str) -> bytes:
        if not self.exists(path):
            raise MissingFileError(f"File not found: {self.describe(path)}")
        start = int(path.removesuffix(".png")) * SIDE * SIDE
        return self._pixels[start : start + SIDE * SIDE]

    def exists(self, path: str) -> bool:
        stem = path.removesuffix(".png")
        return stem.isdigit() and int(stem) < len(self._pixels) // (SIDE * SIDE)

    def names(self, prefix: str = "") -> Iterator[str]:
        return (f"{k}.png" for k in range(len(self._pixels) // (SIDE * SIDE)))

    def describe(self, path: str = "") -> str:
        return f"{self._label}#{path}"


_SPRITE = {"sprite": slice(None), "sprite_train": slice(0, None, 2), "sprite_test": slice(1, None, 2)}


def read(source: Source, split: str) -> Iterator[Classify]:
    """Yield one `Classify` per image.

    Splits "train" and "test" read the official idx files. Split "sprite" cuts the 900 images of the
    repository's sprite, a 30 x 30 grid with three rows per class; "sprite_train" and "sprite_test" are every second one
    of these, 45 of each class.
    """
    if split in _SPRITE:
        sprite = source.find("doc/img/fashion-mnist-sprite.png", "fashion-mnist-sprite.png")
        pixels, labels, name = _sprite(sprite)
    else:
        stem = _PREFIX[split]
        images = source.find(f"{stem}-images-idx3-ubyte", f"data/fashion/{stem}-images-idx3-ubyte")
        truth = source.find(f"{stem}-labels-idx1-ubyte", f"data/fashion/{stem}-labels-idx1-ubyte")
        pixels, labels, name = _idx(images, _IMAGES_MAGIC, 16), _idx(truth, _LABELS_MAGIC, 8), images.name
        if len(pixels) != len(labels) * SIDE * SIDE:
            raise CorruptMediaError(
                f"{images.name} must hold one picture per label of {truth.name}. Get both again."
            )
    store = _Tiles(pixels, name)
    source.classes = list(CLASS_NAMES)
    for k in range(len(labels))[_SPRITE.get(split, slice(None))]:
        label = labels[k]
        yield Classify(
            id=f"{split}-{k}", image=MediaRef(f"{k}.png", store), label=label, class_name=CLASS_NAMES[label]
        )


def _idx(file: StoredFile, magic: int, header: int) -> bytes:
    data = file.read()
    if len(data) < header or struct.unpack(">i", data[:4])[0] != magic:
        raise CorruptMediaError(f"{file.name} must be an idx file with magic number {magic}. Get it again.")
    count = struct.unpack(">i", data[4:8])[0]
    if len(data) - header != count * (SIDE * SIDE if header == 16 else 1):
        raise CorruptMediaError(f"{file.name} is cut short: its header promises {count} items. Get it again.")
    return data[header:]


def _sprite(file: StoredFile) -> tuple[bytes, bytes, str]:
    import numpy as np

    from weft.data.media.images import open_image

    with open_image(file.read(), file.name) as image:
        grey = np.array(image.convert("L"))
    tiles = grey.reshape(GRID, SIDE, GRID, SIDE).transpose(0, 2, 1, 3)
    rows_per_class = GRID // len(CLASS_NAMES)
    return tiles.tobytes(), bytes(k // GRID // rows_per_class for k in range(GRID * GRID)), file.name


SPEC = DatasetSpec(
    name="fashion_mnist",
    record_type="classify",
    splits=("train", "test", *_SPRITE),
    read=read,
    summary="Grey 28-pixel images of clothes in ten classes.",
    licence="MIT",
    citation="Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017.",
    how_to_get="Clone https://github.com/zalandoresearch/fashion-mnist; root is the clone or its folder data/fashion/.",
    expected={"train": 60000, "test": 10000},
)
