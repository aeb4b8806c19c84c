"""How long rows may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from weft.eval.readers.errors import ReaderError
from weft.eval.readers.rows import Row


@dataclass(frozen=True)
class Limits:
    """How long a row may be. Rows are never cut.

    Args:
        tokens: Longest row, prompt and answer together, in tokens; None has no limit.
        answer_tokens: Longest answer, its end included, in tokens; None has no limit.
        too_long: `refuse` stops at a longer row, `drop` leaves it out of the batch and names it there. `cut` is for
            texts that are compared with pictures: they end at the model's last place.
    """

    tokens: int | None = None
    answer_tokens: int | None = None
    too_long: Literal["refuse", "drop", "cut"] = "refuse"

    def fitting(self, rows: Sequence[Row], lengths: Sequence[int], answers: Sequence[int]) -> list[int]:
        """Places of the rows that are short enough.

        Args:
            rows: Rows of a batch.
            lengths: Tokens of each.
            answers: Tokens of the longest answer of each.

        Raises:
            ReaderError: If one is too long and none may be dropped, or none is left.
        """
        kept, fault = [], ""
        for place, (row, *found) in enumerate(zip(rows, lengths, answers, strict=True)):
            limits = (("tokens", self.tokens), ("answer_tokens", self.answer_tokens))
            over = [
                f"`{name}` must be at least the length of every row, but is {limit}, and {row.name} has {length}"
                for (name, limit), length in zip(limits, found, strict=True)
                if limit is not None and length > limit
            ]
            if not over:
                kept.append(place)
            elif self.too_long != "drop":
                raise ReaderError(
                    f"{over[0]}. Raise it, show smaller pictures, or drop such rows: too_long: drop."
                )
            else:
                fault = over[0]
        if not kept:
            raise ReaderError(
                f"a batch must hold an answer to learn, but all of its rows are too long: {fault}."
            )
        return kept
