"""What is read and what shall be answered: turns of text and pictures, in the order in which they are said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weft.data import MediaRef
from weft.data.media.depth import to_eight_bits
from weft.eval.readers.errors import ReaderError

Role = Literal["system", "user", "assistant"]
Part = Any  # a text, a reference to a picture, or a decoded PIL picture
Learn = Literal["last", "all"]


@dataclass(frozen=True)
class Turn:
    """What one side says.

    Attributes:
        role: Who says it.
        parts: Texts and pictures, in their order; a picture is a `MediaRef` or a PIL image.
        learned: Whether an earlier answer is trained on where all are.
    """

    role: Role
    parts: tuple[Part, ...]
    learned: bool = True

    @property
    def text(self) -> str:
        """The texts, without the pictures."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    Attributes:
        name: What messages call it, such as `"vqa/17"`.
        task: Name of its task.
        turns: What is read. The answer stands behind the last one.
        answer: What shall be written, or None in a row that is asked.
        weight: Weight of its loss, in 0..1.
        learn: `last` trains on the answer, `all` on the earlier answers among the turns as well.
    """

    name: str
    task: str
    turns: tuple[Turn, ...]
    answer: str | None = None
    weight: float = 1.0
    learn: Learn = "last"

    @property
    def pictures(self) -> tuple[Any, ...]:
        """Its pictures, in the order in which they are shown."""
        return tuple(part for turn in self.turns for part in turn.parts if not isinstance(part, str))

    @property
    def text(self) -> str:
        """Everything that is read as text, turns parted by line breaks."""
        return "\n".join(turn.text for turn in self.turns)


def ask(text: str, pictures: Sequence[Any] = (), *, name: str = "row", task: str = "", **fields: Any) -> Row:
    """A row of one question behind its pictures.

    Args:
        text: The question.
        pictures: References or PIL images.
        name: See `Row`.
        task: See `Row`.
        **fields: Further fields of `Row`.
    """
    return Row(name, task, (Turn("user", (*pictures, text)),), **fields)


def check_media(row: Row) -> None:
    """Refuse a row with a part that is neither a text nor a picture, or is a video.

    Raises:
        ReaderError: Naming the row.
    """
    from PIL import Image

    for part in row.pictures:
        if isinstance(part, Image.Image) or (isinstance(part, MediaRef) and part.kind == "image"):
            continue
        kind = "a video" if isinstance(part, MediaRef) else f"a {type(part).__name__}"
        raise ReaderError(
            f"`parts` must be texts and pictures, but {row.name} has {kind}. Give references to images, or PIL images."
        )


def decoded(row: Row) -> list[Any]:
    """The pictures of a row as PIL images in RGB.

    Raises:
        ReaderError: If a part is neither a text nor a picture, or is a video.
    """
    return list(_decoded(row))


def _decoded(row: Row) -> Iterator[Any]:
    check_media(row)
    for part in row.pictures:
        if isinstance(part, MediaRef):
            yield part.image()
        else:
            yield part if part.mode == "RGB" else to_eight_bits(part, row.name).convert("RGB")
