"""EuroSAT: satellite images in 10 classes, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "eurosat",
    split_file="split_zhou_EuroSAT.json",
    image_folders=("2750", ""),
    summary="Satellite images of land use in 10 classes.",
    licence="MIT",
    citation="Helber et al., JSTARS 2019.",
    how_to_get="EuroSAT.zip from http://madm.dfki.de/files/sentinel/EuroSAT.zip; root is eurosat/ with 2750/.",
    bases=("", "eurosat", "EuroSAT"),
    expected={"train": 13500, "val": 5400, "test": 8100},
    hub_copy="blanchon/EuroSAT_RGB",
)
