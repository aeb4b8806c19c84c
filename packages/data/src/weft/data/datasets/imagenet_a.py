"""ImageNet-A: natural adversarial photos of 200 classes."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._imagenet import read_folders
from weft.data.records.record import Record
from weft.data.records.source import Source


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image, by class and file name."""
    yield from read_folders(source, ["imagenet-a"], domain="imagenet_a", every_class=False)


SPEC = DatasetSpec(
    name="imagenet_a",
    record_type="classify",
    splits=("test",),
    read=read,
    summary="Photos that fool classifiers, 200 classes.",
    licence="MIT",
    citation="Hendrycks et al.: Natural Adversarial Examples, CVPR 2021.",
    how_to_get="imagenet-a.tar from https://github.com/hendrycks/natural-adv-examples, and ImageNet's "
    "classnames.txt beside it; root is imagenet-adversarial/.",
    bases=("", "imagenet-adversarial", "imagenet-a"),
    expected={"test": 7500},
    hub=(HubSource(repo="clip-benchmark/wds_imagenet-a"),),
)
