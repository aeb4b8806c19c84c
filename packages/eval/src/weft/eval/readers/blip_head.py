"""What the head of a BLIP decides, whoever wrote the model: comparing and matching, answers, captions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from weft.eval.readers.abilities import Ability
from weft.eval.readers.reader import Reader

Head = Literal["compare", "answer", "describe"]
_ABLE: dict[Head, frozenset[Ability]] = {
    "compare": frozenset({"embed", "match"}),
    "answer": frozenset({"write", "score"}),
    "describe": frozenset({"write", "score"}),
}
IDS, MASK, PIXELS = "input_ids", "attention_mask", "pixel_values"


class BlipHeadReader(Reader):
    """A reader of BLIPs, each of which was built with one head."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """What the model was built for."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What the head can do."""
        return _ABLE[self.head]

    @property
    def objective(self) -> str:
        """A comparison, or generation of the answer."""
        return "contrastive" if self.head == "compare" else "generation"
