"""ImageNet-1k: photos in 1,000 classes, by WordNet id."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._imagenet import read_folders
from weft.data.records.record import Record
from weft.data.records.source import Source


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image, by class and file name; few-shot papers test on "val".

    Source: labels as CoOp makes them, from sorted folders. Its few-shot draws list files in the order of the
        file system and cannot be repeated from a seed; store the draw.
    """
    yield from read_folders(source, [f"images/{split}", split], domain="imagenet")


SPEC = DatasetSpec(
    name="imagenet",
    record_type="classify",
    splits=("train", "val"),
    read=read,
    summary="Photos in 1,000 classes.",
    licence="research use, by agreement",
    citation="Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge, IJCV 2015.",
    how_to_get="Images from https://image-net.org as images/{train,val}/n01440764/*.JPEG, classnames.txt as linked in "
    "CoOp's DATASETS.md; root is imagenet/.",
    bases=("", "imagenet", "ImageNet"),
    expected={"val": 50000},
    hub=(HubSource(repo="ILSVRC/imagenet-1k", note="gated"),),
)
