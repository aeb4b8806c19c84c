"""EuroSAT: satellite images in 10 classes, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_EuroSAT.json"
IMAGE_FOLDERS = ("2750", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="eurosat",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Satellite images of land use in 10 classes.",
    licence="MIT",
    citation="Helber et al., JSTARS 2019.",
    how_to_get="EuroSAT.zip from http://madm.dfki.de/files/sentinel/EuroSAT.zip; Root is eurosat/ with "
    "2750/. " + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "eurosat", "EuroSAT"),
    expected={"train": 13500, "val": 5400, "test": 8100},
    hub=(HubSource(repo="blanchon/EuroSAT_RGB", note="its splits are not those of the split file"),),
)
