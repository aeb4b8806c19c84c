"""UCF101: middle frames of action videos in 101 classes, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
    "ucf101",
    split_file="split_zhou_UCF101.json",
    image_folders=("UCF-101-midframes", ""),
    summary="Middle frames of videos of 101 actions.",
    licence="not stated",
    citation="Soomro, Zamir, Shah, 2012.",
    how_to_get="UCF-101-midframes.zip as linked by CoOp; root is ucf101/.",
    bases=("", "ucf101", "UCF101"),
    expected={"train": 7639, "val": 1898, "test": 3783},
)
