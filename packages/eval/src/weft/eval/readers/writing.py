"""How answers are written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Writing:
    """How answers are written.

    Args:
        max_new_tokens: Longest answer, in tokens.
        num_beams: Beams of the search; 1 takes the likeliest token each time.
        no_repeat_ngram_size: Forbids repeated n-grams; 0 allows them.
        early_stopping: End a search with beams once it has as many answers as beams.
    """

    max_new_tokens: int = 20
    num_beams: int = 1
    no_repeat_ngram_size: int = 0
    early_stopping: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `generate`: all are stated, so that no setting saved with a model takes their place."""
        return asdict(self) | {"do_sample": False}
