"""Food-101: dishes in 101 classes, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "food101",
    split_file="split_zhou_Food101.json",
    image_folders=("images", ""),
    summary="Dishes in 101 classes.",
    licence="not stated",
    citation="Bossard, Guillaumin, Van Gool, ECCV 2014.",
    how_to_get="food-101.tar.gz from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/; root is food-101/.",
    bases=("", "food-101", "food101", "Food101"),
    expected={"train": 50500, "val": 20200, "test": 30300},
    hub_copy="ethz/food101",
)
