"""SUN397: scenes in 397 classes, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_SUN397.json"
IMAGE_FOLDERS = ("SUN397", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="sun397",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Scenes in 397 classes.",
    licence="academic use",
    citation="Xiao et al., CVPR 2010.",
    how_to_get="SUN397.tar.gz from https://vision.princeton.edu/projects/2010/SUN/; Root is sun397/ with "
    "SUN397/a/abbey/... " + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "sun397", "SUN397"),
    expected={"train": 15880, "val": 3970, "test": 19850},
    hub=(HubSource(repo="tanganke/sun397", note="its splits are not those of the split file"),),
)
