"""Oxford Flowers: 102 classes, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_OxfordFlowers.json"
IMAGE_FOLDERS = ("jpg", "images", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="flowers102",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Flowers of 102 kinds.",
    licence="not stated",
    citation="Nilsback and Zisserman, ICVGIP 2008.",
    how_to_get="102flowers.tgz from https://www.robots.ox.ac.uk/~vgg/data/flowers/102/; Root is "
    "oxford_flowers/. " + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "oxford_flowers", "flowers102", "Flower102"),
    expected={"train": 4093, "val": 1633, "test": 2463},
    hub=(
        HubSource(repo="dpdl-benchmark/oxford_flowers102", note="its splits are not those of the split file"),
    ),
)
