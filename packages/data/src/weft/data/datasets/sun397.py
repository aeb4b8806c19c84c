"""SUN397: scenes in 397 classes, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "sun397",
    split_file="split_zhou_SUN397.json",
    image_folders=("SUN397", ""),
    summary="Scenes in 397 classes.",
    licence="academic use",
    citation="Xiao et al., CVPR 2010.",
    how_to_get="SUN397.tar.gz from https://vision.princeton.edu/projects/2010/SUN/; root is sun397/ with "
    "SUN397/a/abbey/...",
    bases=("", "sun397", "SUN397"),
    expected={"train": 15880, "val": 3970, "test": 19850},
    hub_copy="tanganke/sun397",
)
