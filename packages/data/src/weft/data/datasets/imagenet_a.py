"""ImageNet-A: natural adversarial photos of 200 classes."""

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._imagenet import read_folders

SPEC = DatasetSpec(
    name="imagenet_a",
    record_type="classify",
    splits=("test",),
    read=lambda source, split: read_folders(source, ["imagenet-a"], domain="imagenet_a", every_class=False),
    summary="Photos that fool classifiers, 200 classes.",
    licence="MIT",
    citation="Hendrycks et al.: Natural Adversarial Examples, CVPR 2021.",
    how_to_get="imagenet-a.tar from https://github.com/hendrycks/natural-adv-examples, and ImageNet's "
    "classnames.txt beside it; root is imagenet-adversarial/.",
    bases=("", "imagenet-adversarial", "imagenet-a"),
    expected={"test": 7500},
    hub=(HubSource(repo="clip-benchmark/wds_imagenet-a"),),
)
