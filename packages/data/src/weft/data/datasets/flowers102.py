"""Oxford Flowers: 102 classes, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "flowers102",
    split_file="split_zhou_OxfordFlowers.json",
    image_folders=("jpg", "images", ""),
    summary="Flowers of 102 kinds.",
    licence="not stated",
    citation="Nilsback and Zisserman, ICVGIP 2008.",
    how_to_get="102flowers.tgz from https://www.robots.ox.ac.uk/~vgg/data/flowers/102/; root is oxford_flowers/.",
    bases=("", "oxford_flowers", "flowers102", "Flower102"),
    expected={"train": 4093, "val": 1633, "test": 2463},
    hub_copy="dpdl-benchmark/oxford_flowers102",
)
