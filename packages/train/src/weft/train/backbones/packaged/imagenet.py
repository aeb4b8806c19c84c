"""Texts about ImageNet's 1,000 classes, in the order of its classifiers."""

from __future__ import annotations

import json

from weft.train.backbones.packaged.packages import (
    CLASS_DESCRIPTIONS,
    CLASS_NAMES,
    GLOSSES,
    LEMMAS,
    SYNSETS,
    PackagedFile,
)

KINDS = ("photo", "gloss", "description")
"""Ways of speaking of a class: its name in a template, WordNet's words and gloss, its name and what it looks like."""


def imagenet_texts() -> dict[str, list[str]]:
    """One text of each of `KINDS` about every class.

    The 25 classes that have no description get their gloss.

    Raises:
        RunError: If a package that holds them is absent, or holds others.
    """
    synsets = SYNSETS.located().read_text(encoding="utf-8").split()
    lemmas, glosses = _by_synset(LEMMAS), _by_synset(GLOSSES)
    names: list[str] = json.loads(CLASS_NAMES.located().read_text(encoding="utf-8"))
    told = json.loads(CLASS_DESCRIPTIONS.located().read_text(encoding="utf-8"))
    descriptions = [
        told[str(index)]["description"] if str(index) in told else glosses[synset]
        for index, synset in enumerate(synsets)
    ]
    return {
        "photo": [f"a photo of a {name}." for name in names],
        "gloss": [f"{lemmas[synset]}: {glosses[synset]}" for synset in synsets],
        "description": [f"{name}: {text}" for name, text in zip(names, descriptions, strict=True)],
    }


def _by_synset(file: PackagedFile) -> dict[str, str]:
    lines = file.located().read_text(encoding="utf-8").strip().split("\n")
    return dict(line.split("\t", 1) for line in lines)
