"""Oxford-IIIT Pets: 37 breeds of cats and dogs, with CoOp's split."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coop import HOW_TO_GET_SPLIT, SPLITS, read_coop
from weft.data.records.record import Record
from weft.data.records.source import Source

SPLIT_FILE = "split_zhou_OxfordPets.json"
IMAGE_FOLDERS = ("images", "")


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image of the split file, in its order."""
    yield from read_coop(source, split, split_file=SPLIT_FILE, image_folders=IMAGE_FOLDERS)


SPEC = DatasetSpec(
    name="oxford_pets",
    record_type="classify",
    splits=SPLITS,
    read=read,
    summary="Cats and dogs of 37 breeds.",
    licence="CC BY-SA 4.0",
    citation="Parkhi et al.: Cats and Dogs, CVPR 2012.",
    how_to_get="images.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/; Root is oxford_pets/. "
    + HOW_TO_GET_SPLIT.format(file=SPLIT_FILE),
    bases=("", "oxford_pets", "oxfordpets", "OxfordPets"),
    expected={"train": 2944, "val": 736, "test": 3669},
    hub=(HubSource(repo="timm/oxford-iiit-pet", note="its splits are not those of the split file"),),
)
