"""ImageNet-Sketch: black-and-white sketches of the 1,000 classes."""

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._imagenet import read_folders

SPEC = DatasetSpec(
    name="imagenet_sketch",
    record_type="classify",
    splits=("test",),
    read=lambda source, split: read_folders(
        source, ["images", "sketch"], domain="imagenet_sketch", every_class=True
    ),
    summary="Sketches of the ImageNet classes.",
    licence="not stated",
    citation="Wang et al.: Learning Robust Global Representations by Penalizing Local Predictive Power, NeurIPS 2019.",
    how_to_get="ImageNet-Sketch.zip from https://github.com/HaohanWang/ImageNet-Sketch, and ImageNet's "
    "classnames.txt beside it; root is imagenet-sketch/.",
    bases=("", "imagenet-sketch", "ImageNet-Sketch"),
    expected={"test": 50889},
    hub=(HubSource(repo="clip-benchmark/wds_imagenet_sketch"),),
)
