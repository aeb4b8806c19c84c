"""UCF101: middle frames of action videos in 101 classes, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_UCF101.json"
IMAGE_FOLDERS = ("UCF-101-midframes", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="ucf101",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Middle frames of videos of 101 actions.",
    licence="not stated",
    citation="Soomro, Zamir, Shah, 2012.",
    how_to_get="UCF-101-midframes.zip as linked by CoOp; Root is ucf101/. "
    + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "ucf101", "UCF101"),
    expected={"train": 7639, "val": 1898, "test": 3783},
)
