"""Rows as models without a template read them: pictures, then one question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.eval.readers.errors import ReaderError
from weft.eval.readers.reader import Reader
from weft.eval.readers.rows import Row, decoded


def check_answers(rows: Sequence[Row]) -> None:
    """Refuse rows that have nothing to learn, unless they weigh nothing.

    Raises:
        ReaderError: Naming the first such row.
    """
    if not rows:
        raise ReaderError("`rows` must hold at least one row, but is empty. Draw a batch of records.")
    bare = [row.name for row in rows if row.weight and not row.answers and not (row.answer or "").strip()]
    if bare:
        raise ReaderError(
            f"`answer` must hold a word to learn in every row, but {len(bare)} of {len(rows)} are empty, such as that "
            f"of {bare[0]}. Leave records without an answer out of training."
        )


class OneQuestion(Reader):
    """A reader of rows that are one question after its pictures."""

    @property
    def _shown(self) -> tuple[int, int | None]:
        """Fewest and most pictures of a row; None for any number."""
        return 1, 1

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        if not self.paired:
            super().check(row)
        self._check([row])

    def _check(self, rows: Sequence[Row]) -> None:
        """Refuse a row that has earlier answers, a text before a picture, or too few or too many pictures."""
        least, most = self._shown
        wanted = f"at least {least}" if most is None else " to ".join(map(str, sorted({least, most})))
        for row in rows:
            if any(turn.role == "assistant" for turn in row.turns):
                raise ReaderError(
                    f"a row must be one question for a model without a chat template, but {row.name} has earlier "
                    "answers. Give a row for each answer, or choose a model with a chat template."
                )
            count = len(row.pictures)
            if count < least or (most is not None and count > most):
                raise ReaderError(
                    f"the number of pictures of a row must be {wanted} for this model, but {row.name} has {count}. "
                    "Leave it out, or choose a model with a chat template."
                )
            parts = (part for turn in row.turns for part in turn.parts)
            said = [part for part in parts if not isinstance(part, str) or part.strip()]
            if any(isinstance(part, str) for part in said[:count]):
                raise ReaderError(
                    f"pictures must come before the text for a model without a chat template, but {row.name} has text "
                    "before one. Leave {image} out of `ask`, and texts of the system out."
                )


def check_sides(rows: Sequence[Row]) -> tuple[bool, bool]:
    """Whether rows that are compared have texts, and whether they have pictures.

    Raises:
        ReaderError: If some have a side that others lack.
    """
    texts = [any(isinstance(part, str) for turn in row.turns for part in turn.parts) for row in rows]
    for there in (texts, [bool(row.pictures) for row in rows]):
        if any(there) and not all(there):
            odd = rows[there.index(False)].name
            raise ReaderError(
                f"either side of a comparison must be in all rows or in none, but {odd} lacks one that others have. "
                "Ask texts and pictures apart."
            )
    return any(texts), any(row.pictures for row in rows)


def pictures_of(rows: Sequence[Row], videos: bool = False) -> list[list[Any]] | None:
    """The decoded pictures of each row, or None where no row has any; videos are refused, or left to others."""
    found = [decoded(row, videos) for row in rows]
    return found if any(found) else None
