"""Stanford Cars: 196 models, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_StanfordCars.json"
IMAGE_FOLDERS = ("", "images")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="stanford_cars",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Cars of 196 models.",
    licence="unclear",
    citation="Krause et al., ICCV workshop 2013.",
    how_to_get="cars_train.tgz and cars_test.tgz; Root is stanford_cars/ with cars_train/ and cars_test/. "
    + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "stanford_cars", "stanfordcars", "StanfordCars"),
    expected={"train": 6509, "val": 1635, "test": 8041},
    hub=(HubSource(repo="tanganke/stanford_cars", note="its splits are not those of the split file"),),
)
