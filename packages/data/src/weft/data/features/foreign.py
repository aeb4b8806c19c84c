"""Features that others extracted: HDF5 per image or split, the hub's Parquet, the npz files of VALUE.

Every reader yields (id, array) pairs, ready for `write_features`.
"""

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import CorruptMediaError, MissingFileError, WeftDataError, needed
from weft.data.sources.limits import check_unpacked

Item = tuple[str, NDArray[Any]]


def read_hdf5(path: str | os.PathLike[str], dataset: str = "features") -> Iterator[Item]:
    """Yield features of one HDF5 file (a group per image) or of a folder of such files, sorted by name.

    Args:
        path: File or folder. In a file per image, the group is named by the image id.
        dataset: Name of the array inside each group.

    Raises:
        MissingDependencyError: If h5py is not installed.
        MissingFileError: If there is no HDF5 file.
        CorruptMediaError: Naming a file that cannot be read or lacks the array.
    """
    h5py = needed("h5py", "Reading HDF5 features", "h5py", "h5py")
    for file in _files(path, (".h5", ".hdf5")):
        with _whole(file, "an HDF5 file"), h5py.File(file, "r") as content:
            for identity in content:
                group = content[identity]
                if not isinstance(group, h5py.Group) or dataset not in group:
                    raise CorruptMediaError(
                        f"{file} must hold groups with an array `{dataset}`, but {identity!r} is none. "
                        "Name the array with dataset=."
                    )
                check_unpacked(group[dataset].nbytes, file.stat().st_size, f"{file}, {identity!r},")
                yield identity, group[dataset][...]


def read_feature_parquet(path: str | os.PathLike[str]) -> Iterator[Item]:
    """Yield features of Parquet shards with columns `id` and `features` (nested lists), sorted by file name.

    Args:
        path: File or folder, such as a download of the hub data set `ylsung/VL-Adapter-datasets`.
    """
    import pyarrow.parquet as parquet

    for file in _files(path, (".parquet",)):
        with _whole(file, "Parquet with columns `id` and `features`"):
            shard = parquet.ParquetFile(file)
            for batch in shard.iter_batches(batch_size=64, columns=["id", "features"]):
                for identity, features in zip(batch.column("id"), batch.column("features"), strict=True):
                    yield str(identity.as_py()), _nested(features)


def read_npz(path: str | os.PathLike[str], array: str = "features") -> Iterator[Item]:
    """Yield features of a folder of npz files, one per video, as VALUE ships them; sorted by name.

    Args:
        path: Folder (or one file); the id is the file name without ending.
        array: Name of the array in each file.
    """
    for file in _files(path, (".npz",)):
        with _whole(file, f"an npz file with `{array}`"):
            with zipfile.ZipFile(file) as archive:
                entry = archive.getinfo(f"{array}.npy")
            check_unpacked(entry.file_size, file.stat().st_size, f"{file}, `{array}`,")
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as content:
                yield file.stem, content[array]


@contextmanager
def _whole(file: Path, kind: str) -> Iterator[None]:
    """Say of a file that it is not what it should be, whatever a library raised; memory is lacking where it lies."""
    try:
        yield
    except WeftDataError:
        raise
    except Exception as error:
        raise CorruptMediaError(f"{file} must be {kind}, but {error}. Get it again.") from error


def _nested(value: Any) -> NDArray[Any]:
    """Turn a nested list scalar into an array without a Python object per number."""
    import pyarrow as arrow

    values, shape = value.values, []
    while isinstance(values, arrow.ListArray | arrow.LargeListArray | arrow.FixedSizeListArray):
        shape.append(len(values))
        values = values.flatten()
    flat = values.to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(*shape, -1) if shape else np.asarray(flat)


def _files(path: str | os.PathLike[str], endings: tuple[str, ...]) -> list[Path]:
    place = Path(path)
    if place.is_file():
        return [place]
    found = sorted(file for ending in endings for file in place.rglob(f"*{ending}")) if place.is_dir() else []
    if not found:
        raise MissingFileError(
            f"`path` must be a file or a folder with {' or '.join(endings)} files, but {place} is not. "
            "Point it at the unpacked features."
        )
    return found
