"""Describable Textures: 47 classes, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_DescribableTextures.json"
IMAGE_FOLDERS = ("images", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="dtd",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Textures in 47 classes.",
    licence="research use",
    citation="Cimpoi et al., CVPR 2014.",
    how_to_get="dtd-r1.0.1.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/dtd/; Root is dtd/. "
    + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "dtd", "DTD"),
    expected={"train": 2820, "val": 1128, "test": 1692},
    hub=(HubSource(repo="tanganke/dtd", note="its splits are not those of the split file"),),
)
