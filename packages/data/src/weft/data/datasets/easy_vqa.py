"""easy-VQA: questions about one coloured shape, with 13 answers (synthetic, MIT)."""

from weft.data.catalog import DatasetSpec
from weft.data.datasets._easy_vqa import BASES, HOW_TO_GET, read

SPEC = DatasetSpec(
    name="easy_vqa",
    record_type="image_qa",
    splits=("train", "test"),
    read=read,
    summary="48 k questions about 5,000 images of one coloured shape; 13 answers.",
    licence="MIT",
    citation="Victor Zhou, easy-VQA, 2019.",
    how_to_get=HOW_TO_GET,
    bases=BASES,
    expected={"train": 38575, "test": 9673},
)
