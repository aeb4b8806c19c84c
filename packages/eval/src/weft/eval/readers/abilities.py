"""What a model can do, in words that readers declare."""

from __future__ import annotations

from typing import Literal

Ability = Literal["write", "score", "embed", "match", "classify", "features"]
ABILITIES: dict[Ability, str] = {
    "write": "write an answer",
    "score": "tell how likely given answers are",
    "embed": "give features of texts and of images",
    "match": "tell whether a text belongs to an image",
    "classify": "tell images apart by classes",
    "features": "read features of its vision tower that were extracted once",
}
