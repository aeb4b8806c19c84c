"""Describable Textures: 47 classes, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "dtd",
    split_file="split_zhou_DescribableTextures.json",
    image_folders=("images", ""),
    summary="Textures in 47 classes.",
    licence="research use",
    citation="Cimpoi et al., CVPR 2014.",
    how_to_get="dtd-r1.0.1.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/dtd/; root is dtd/.",
    bases=("", "dtd", "DTD"),
    expected={"train": 2820, "val": 1128, "test": 1692},
    hub_copy="tanganke/dtd",
)
