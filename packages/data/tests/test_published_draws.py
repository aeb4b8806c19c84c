"""Draws equal the index files that cross-modal adaptation (Lin et al., CVPR 2023) publishes beside CoOp's split files.

Both lie in `linzhiqiu+cross_modal_adaptation/{splits,indices}` of the folder of real files, as in their repository.
"""

import json
import os

import pytest

from weft.data import Classify, MediaRef, draw_few_shot
from weft.data.records.record_set import RecordSet

FOLDER = "linzhiqiu+cross_modal_adaptation"
SPLIT_FILES = {
    "caltech101": "Caltech101",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "food101": "Food101",
    "oxford_flowers": "OxfordFlowers",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "sun397": "SUN397",
    "ucf101": "UCF101",
}


def records_of(file, split):
    media = MediaRef.from_bytes(b"")
    rows = json.loads(file.read_text())[split]
    records = [Classify(id=path, image=media, label=label, class_name=name) for path, label, name in rows]
    return RecordSet(file.stem, split, "classify", records)


@pytest.mark.parametrize("name", sorted(SPLIT_FILES))
def test_draws_equal_the_published_ones(realdata, name):
    file = realdata / FOLDER / "splits" / f"split_zhou_{SPLIT_FILES[name]}.json"
    published = realdata / FOLDER / "indices" / name
    if not file.is_file() or not published.is_dir():
        pytest.skip(f"{file} or {published} is not there; their repository has both")
    train, validation = records_of(file, "train"), records_of(file, "val")
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            stored = json.loads((published / f"shot_{shots}-seed_{seed}.json").read_text())
            draw = draw_few_shot(train, validation, shots=shots, seed=seed)
            for split, records, drawn in (
                ("train", train, draw.train),
                ("val", validation, draw.validation),
            ):
                rows = stored[split]["data"]
                assert len(rows) == len(drawn)
                for row, index in zip(rows, drawn, strict=True):
                    record = records[index]
                    assert os.path.normpath(row["impath"]).endswith(record.id), (shots, seed, split)
                    assert (row["label"], row["classname"]) == (record.label, record.class_name)
