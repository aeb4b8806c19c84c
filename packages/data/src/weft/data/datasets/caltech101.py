"""Caltech-101: objects in 100 classes, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "caltech101",
    split_file="split_zhou_Caltech101.json",
    image_folders=("101_ObjectCategories", "caltech-101/101_ObjectCategories", ""),
    summary="Objects in 100 classes.",
    licence="CC BY 4.0",
    citation="Fei-Fei, Fergus, Perona, CVPR workshop 2004.",
    how_to_get="101_ObjectCategories.tar.gz from https://data.caltech.edu/records/mzrjq-6wc02; root is caltech-101/.",
    bases=("", "caltech-101", "caltech101", "Caltech101"),
    expected={"train": 4128, "val": 1649, "test": 2465},
    hub_copy="dpdl-benchmark/caltech101",
)
