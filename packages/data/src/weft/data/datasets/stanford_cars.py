"""Stanford Cars: 196 models, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "stanford_cars",
    split_file="split_zhou_StanfordCars.json",
    image_folders=("", "images"),
    summary="Cars of 196 models.",
    licence="unclear",
    citation="Krause et al., ICCV workshop 2013.",
    how_to_get="cars_train.tgz and cars_test.tgz; root is stanford_cars/ with cars_train/ and cars_test/.",
    bases=("", "stanford_cars", "stanfordcars", "StanfordCars"),
    expected={"train": 6509, "val": 1635, "test": 8041},
    hub_copy="tanganke/stanford_cars",
)
