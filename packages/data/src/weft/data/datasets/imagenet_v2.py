"""ImageNet-V2 (matched frequency): a new test set for the 1,000 classes, folders numbered 0 to 999."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._imagenet import read_folders
from weft.data.records.record import Record
from weft.data.records.source import Source

_FOLDER = "imagenetv2-matched-frequency-format-val"


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `Classify` per image; folder k is class k of the sorted WordNet ids."""

    def class_of(folder: str, names: dict[str, str]) -> str | None:
        wnids = sorted(names)
        return wnids[int(folder)] if folder.isdigit() and int(folder) < len(wnids) else None

    yield from read_folders(source, [_FOLDER], domain="imagenet_v2", class_of=class_of)


SPEC = DatasetSpec(
    name="imagenet_v2",
    record_type="classify",
    splits=("test",),
    read=read,
    summary="A second test set for ImageNet.",
    licence="MIT (code)",
    citation="Recht et al.: Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019.",
    how_to_get="imagenetv2-matched-frequency.tar.gz from https://huggingface.co/datasets/vaishaal/ImageNetV2, and "
    "ImageNet's classnames.txt beside it; root is imagenetv2/.",
    bases=("", "imagenetv2"),
    expected={"test": 10000},
    hub=(HubSource(repo="clip-benchmark/wds_imagenetv2"),),
)
