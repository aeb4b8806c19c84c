"""What tests of data sets share: tiny images, trees of files, and the contract every data set keeps.

Third parties inherit `DatasetContract` for their own data sets. Needs pytest.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from weft.data.catalog import dataset_spec, load_dataset
from weft.data.datasets.coop import LAYOUTS
from weft.data.errors import MissingFileError, UnknownNameError
from weft.data.records.record import Record, record_class
from weft.data.records.record_set import RecordSet

Files = Mapping[str, bytes | str]


def coop_layout(name: str) -> tuple[str, str]:
    """The split file of a data set that CoOp divides, and the folder that its paths start from ("" for the root)."""
    dataset_spec(name)  # its module fills the table
    return LAYOUTS[name]


def image_bytes(
    color: tuple[int, ...] = (200, 30, 30), size: tuple[int, int] = (12, 8), kind: str = "PNG"
) -> bytes:
    """Return a small encoded image of one colour (RGB, or RGBA with four values)."""
    stream = io.BytesIO()
    Image.new("RGBA" if len(color) == 4 else "RGB", size, color).save(stream, kind)
    return stream.getvalue()


def mean_colors(records: Sequence[Record]) -> list[NDArray[np.float32]]:
    """Return the mean colour of each record's first image, shape (3,): a tiny encoder that pickles."""
    images = (record.media_refs()[0].image() for record in records)
    return [np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images]


def zip_bytes(files: Files) -> bytes:
    """Return a zip archive of `files`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def write_tree(root: Path, files: Files) -> Path:
    """Write `files` below `root` and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


class DatasetContract:
    """What every data set keeps, on a miniature of its official layout.

    Subclasses set `name`, `split` and `count`, and return the miniature from `files`.
    """

    name: ClassVar[str]
    split: ClassVar[str] = "train"
    count: ClassVar[int]
    options: ClassVar[Mapping[str, Any]] = {}

    def files(self) -> Files:
        """Return path to content of a miniature of the official layout."""
        raise AssertionError("a contract test must say which files its data set reads")

    def load(self, root: Any, **changes: Any) -> RecordSet[Any]:
        """Load the miniature from `root`."""
        arguments: dict[str, Any] = {"split": self.split, **self.options, **changes}
        return load_dataset(self.name, root, **arguments)

    @pytest.fixture
    def records(self, tmp_path: Path) -> RecordSet[Any]:
        """The records of the miniature, from a folder."""
        return self.load(write_tree(tmp_path / "root", self.files()))

    def test_records_are_typed_with_unique_ids(self, records: RecordSet[Any]) -> None:
        """Every record has the set's type, and its own id."""
        assert len(records) == self.count
        assert {type(record) for record in records} == {record_class(records.record_type)}
        assert len({record.id for record in records}) == len(records)
        assert all(isinstance(record.id, str) for record in records)

    def test_media_stay_closed_until_asked_and_then_open(self, records: RecordSet[Any]) -> None:
        """References of the first record lead to files that exist."""
        references = records[0].media_refs()
        assert references
        assert all(reference.exists() for reference in references)
        assert all(reference.image().mode == "RGB" for reference in references if reference.kind == "image")

    def test_records_travel_to_workers(self, records: RecordSet[Any]) -> None:
        """A pickled record set is equal, media included."""
        copy = pickle.loads(pickle.dumps(records))  # noqa: S301  (its own pickle)
        assert copy.fingerprint() == records.fingerprint()
        assert copy[0].media_refs()[0].read() == records[0].media_refs()[0].read()

    def test_zip_and_url_give_the_same_records(self, records: RecordSet[Any], tmp_path: Path) -> None:
        """A zip of the root and a memory:// URL parse to the same records."""
        archive = tmp_path / "all.zip"
        archive.write_bytes(zip_bytes(self.files()))
        filesystem = fsspec.filesystem("memory")
        for path, content in self.files().items():
            filesystem.pipe(f"/{self.name}/{path}", content.encode() if isinstance(content, str) else content)
        try:
            for root in (archive, f"memory://{self.name}"):
                other = self.load(root)
                assert other.fingerprint() == records.fingerprint(), root
                assert other[0].media_refs()[0].read() == records[0].media_refs()[0].read()
        finally:
            filesystem.rm(f"/{self.name}", recursive=True)

    def test_an_empty_folder_is_reported_with_the_paths_tried_and_the_remedy(self, tmp_path: Path) -> None:
        """The error names the folder and says how to get the files."""
        with pytest.raises(MissingFileError, match="How to get them") as caught:
            self.load(tmp_path)
        assert str(tmp_path) in str(caught.value)

    def test_a_misspelt_split_is_refused(self, tmp_path: Path) -> None:
        """The error lists the splits."""
        if dataset_spec(self.name).splits:
            with pytest.raises(UnknownNameError, match="Known: "):
                load_dataset(self.name, tmp_path, "trian")
