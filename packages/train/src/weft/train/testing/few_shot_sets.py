"""The few-shot data sets in miniature, ImageNet's shifted ones among them: every class, and the images draws need."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from weft.data.testing import coop_layout
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.loading import load_any
from weft.train.testing.annotations import write

SETS = {
    "caltech101": ("caltech-101", 100),
    "oxford_pets": ("oxford_pets", 37),
    "stanford_cars": ("stanford_cars", 196),
    "flowers102": ("oxford_flowers", 102),
    "food101": ("food-101", 101),
    "sun397": ("sun397", 397),
    "dtd": ("dtd", 47),
    "ucf101": ("ucf101", 101),
}
"""Data set with a split file of CoOp to its folder, as CoOp's instructions name it, and its number of classes."""
EUROSAT = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
AIRCRAFT, IMAGENET, FEWER = 100, 1000, 200
COUNTS = {"train": 20, "val": 4, "test": 1}
"""Images per class: 16 for the largest draw, and 4 more from which ImageNet draws its validation images."""


def few_shot_recipe(values: Mapping[str, Any], **changes: Any) -> FewShotRecipe:
    """A recipe of some values with changes."""
    found = load_any({**values, **changes})
    assert isinstance(found, FewShotRecipe)
    return found


def write_colours(
    root: Path, colours: Mapping[str, tuple[int, int, int]], counts: Mapping[str, int], width: int = 28
) -> Path:
    """Write folders of noisy pictures of one colour, by split and class, into a folder, which is returned.

    Args:
        root: A folder.
        colours: Class to its colour.
        counts: Split to the images of a class.
        width: Width of the pictures in pixels; they are 28 high.
    """
    generator = torch.Generator().manual_seed(0)
    for split, count in counts.items():
        for name, colour in colours.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(-60, 61, (28, width, 3), generator=generator)
                pixels = (torch.tensor(colour) + noise).clamp(0, 255).to(torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return root


def write_few_shot_sets(root: Path, names: Sequence[str] | None = None) -> None:
    """Write split files and images; all images of a set are one file, linked under every name.

    Args:
        root: What recipes call `$WEFT_DATA`.
        names: Data sets; by default all eleven. With `imagenet` come its four shifted test sets.
    """
    for name, (folder, number) in SETS.items():
        if names is None or name in names:
            _write_split(root / folder, name, [f"class {k}" for k in range(number)])
    if names is None or "eurosat" in names:
        _write_split(root / "eurosat", "eurosat", EUROSAT)
    if names is None or "fgvc_aircraft" in names:
        _write_aircraft(root / "fgvc_aircraft")
    if names is None or "imagenet" in names:
        _write_imagenet(root / "imagenet")


def _write_split(root: Path, name: str, classes: Sequence[str]) -> None:
    split_file, folder = coop_layout(name)
    rows = {
        split: [
            [f"{label:03d}/{split}_{k}.jpg", label, title]
            for label, title in enumerate(classes)
            for k in range(count)
        ]
        for split, count in COUNTS.items()
    }
    write(root / split_file, rows)
    _link(root / folder / str(path) for split in rows.values() for path, _, _ in split)


def _write_aircraft(root: Path) -> None:
    write(root / "variants.txt", "".join(f"Variant {k}\n" for k in range(AIRCRAFT)))
    number = 0
    for split, count in COUNTS.items():
        lines = [f"{number + k:07d} Variant {k % AIRCRAFT}\n" for k in range(AIRCRAFT * count)]
        write(root / f"images_variant_{split}.txt", "".join(lines))
        _link(root / "images" / f"{line[:7]}.jpg" for line in lines)
        number += len(lines)


def _write_imagenet(root: Path) -> None:
    ids = [f"n{k:08d}" for k in range(IMAGENET)]
    # As in the real list, two pairs of classes have one name each.
    names = [f"class {k - 2 if k in (9, 19) else k}" for k in range(IMAGENET)]
    lines = [f"{wnid} {name}\n" for wnid, name in zip(ids, names, strict=True)]
    write(root / "classnames.txt", "".join(lines))
    for split in ("train", "val"):
        _link(
            root / "images" / split / wnid / f"{wnid}_{k}.JPEG"
            for wnid in ids
            for k in range(COUNTS["train" if split == "train" else "test"])
        )
    numbers = [str(k) for k in range(IMAGENET)]
    for folder, inner, classes in (
        ("imagenetv2", "imagenetv2-matched-frequency-format-val", numbers),
        ("imagenet-sketch", "images", ids),
        ("imagenet-adversarial", "imagenet-a", ids[:FEWER]),
        ("imagenet-rendition", "imagenet-r", ids[:FEWER]),
    ):
        _link(root.parent / folder / inner / name / "1.JPEG" for name in classes)
        write(root.parent / folder / "classnames.txt", "".join(lines))


def _link(paths: Iterable[Path]) -> None:
    """Write one small image under every path; hard links cost no room."""
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (60, 120, 180)).save(stream, "JPEG")
    first: Path | None = None
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            path.write_bytes(stream.getvalue())
            first = path
        else:
            os.link(first, path)
