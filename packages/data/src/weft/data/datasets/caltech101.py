"""Caltech-101: objects in 100 classes, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_Caltech101.json"
IMAGE_FOLDERS = ("101_ObjectCategories", "caltech-101/101_ObjectCategories", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="caltech101",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Objects in 100 classes.",
    licence="CC BY 4.0",
    citation="Fei-Fei, Fergus, Perona, CVPR workshop 2004.",
    how_to_get="101_ObjectCategories.tar.gz from https://data.caltech.edu/records/mzrjq-6wc02; Root is "
    "caltech-101/. " + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "caltech-101", "caltech101", "Caltech101"),
    expected={"train": 4128, "val": 1649, "test": 2465},
    hub=(HubSource(repo="dpdl-benchmark/caltech101", note="its splits are not those of the split file"),),
)
