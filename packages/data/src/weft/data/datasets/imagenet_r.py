"""ImageNet-R: renditions (art, toys, sculpture) of 200 classes."""

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._imagenet import read_folders

SPEC = DatasetSpec(
    name="imagenet_r",
    record_type="classify",
    splits=("test",),
    read=lambda source, split: read_folders(source, ["imagenet-r"], domain="imagenet_r", every_class=False),
    summary="Renditions of 200 ImageNet classes.",
    licence="MIT",
    citation="Hendrycks et al.: The Many Faces of Robustness, ICCV 2021.",
    how_to_get="imagenet-r.tar from https://github.com/hendrycks/imagenet-r, and ImageNet's "
    "classnames.txt beside it; root is imagenet-rendition/.",
    bases=("", "imagenet-rendition", "imagenet-r"),
    expected={"test": 30000},
    hub=(HubSource(repo="clip-benchmark/wds_imagenet-r"),),
)
