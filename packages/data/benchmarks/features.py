"""Feature arrays per second in random order: the memory-mapped store against one HDF5 file per image."""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.data.features.write import write_features


def rate(read: Callable[[int], np.ndarray], order: list[int]) -> float:
    """Return items per second; each is copied into a batch of 16-bit floats, as collation does."""
    batch = np.empty((64, *read(0).shape), dtype=np.float16)
    start = time.perf_counter()
    for position, item in enumerate(order):
        batch[position % 64] = read(item)
    return len(order) / (time.perf_counter() - start)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--tokens", type=int, default=49)
    parser.add_argument("--size", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    block = generator.normal(size=(16, arguments.tokens, arguments.size)).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(arguments.count):
            with h5py.File(root / f"{number}.h5", "w") as file:
                file[f"{number}/features"] = block[number % 16]
        items = ((str(number), block[number % 16]) for number in range(arguments.count))
        store = write_features(root / "store", items, FeatureKey("e", "w", "t"))
        store = FeatureStore(store.path)

        def read_hdf5(item: int) -> np.ndarray:
            with h5py.File(root / f"{item}.h5", "r") as file:
                return file[f"{item}/features"][...]

        order = list(range(arguments.count))
        random.Random(0).shuffle(order)
        old = max(rate(read_hdf5, order) for _ in range(arguments.rounds))
        new = max(rate(store.__getitem__, order) for _ in range(arguments.rounds))
    print(f"HDF5 per image {old:10.1f} items/s")
    print(f"store          {new:10.1f} items/s   {new / old:.2f} x HDF5")


if __name__ == "__main__":
    main()
