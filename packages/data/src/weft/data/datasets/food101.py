"""Food-101: dishes in 101 classes, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_Food101.json"
IMAGE_FOLDERS = ("images", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="food101",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Dishes in 101 classes.",
    licence="not stated",
    citation="Bossard, Guillaumin, Van Gool, ECCV 2014.",
    how_to_get="food-101.tar.gz from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/; Root is "
    "food-101/. " + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "food-101", "food101", "Food101"),
    expected={"train": 50500, "val": 20200, "test": 30300},
    hub=(HubSource(repo="ethz/food101", note="its splits are not those of the split file"),),
)
