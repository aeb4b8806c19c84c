"""What is read and what should be answered: turns of text and pictures, in the order in which they are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weft.data import MediaRef
from weft.data.media.depth import to_eight_bits
from weft.eval.readers.classes import Classes
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.video_frames import is_video

Role = Literal["system", "user", "assistant"]
Part = Any  # a text, a reference to a picture or a video, a PIL picture, or a film
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
        turns: What is read. The answer follows the last one.
        answer: What should be written, or None in a row that is asked.
        weight: Weight of its loss, in 0..1.
        learn: `last` trains on the answer, `all` on the earlier answers among the turns as well.
        answers: All answers to learn, each with its weight, in the place of `answer`, where the reader weighs several.
        text_tokens: The text is cut there by readers that cut; None cuts nothing.
        answer_tokens: Each answer is cut there, too.
        draw: Name by which its pictures are drawn at random in training, or None where nothing is drawn.
        classes: The classes of its task, one of which is its answer, or None
            where answers are of no list.
    """

    name: str
    task: str
    turns: tuple[Turn, ...]
    answer: str | None = None
    weight: float = 1.0
    learn: Learn = "last"
    answers: tuple[tuple[str, float], ...] = ()
    text_tokens: int | None = None
    answer_tokens: int | None = None
    draw: str | None = None
    classes: Classes | None = None

    @property
    def pictures(self) -> tuple[Any, ...]:
        """Its pictures and videos, in the order in which they are shown."""
        return tuple(part for turn in self.turns for part in turn.parts if not isinstance(part, str))

    @property
    def stills(self) -> tuple[Any, ...]:
        """Its pictures but for videos."""
        return tuple(part for part in self.pictures if not is_video(part))

    @property
    def videos(self) -> tuple[Any, ...]:
        """Its videos, in the order in which they are shown."""
        return tuple(part for part in self.pictures if is_video(part))

    @property
    def text(self) -> str:
        """Everything that is read as text, turns separated by line breaks."""
        return "\n".join(turn.text for turn in self.turns)


def ask(text: str, pictures: Sequence[Any] = (), *, name: str = "row", task: str = "", **fields: Any) -> Row:
    """A row of one question after its pictures, which are references or PIL images; the rest as in `Row`."""
    return Row(name, task, (Turn("user", (*pictures, text)),), **fields)


def check_media(row: Row, videos: bool = False) -> None:
    """Refuse a row with a part that is neither a text nor a picture, nor a video where `videos` may be.

    Raises:
        ReaderError: Naming the row.
    """
    from PIL import Image

    for part in row.stills if videos else row.pictures:
        if isinstance(part, Image.Image) or (isinstance(part, MediaRef) and part.kind == "image"):
            continue
        kind = "a video" if is_video(part) else f"a {type(part).__name__}"
        raise ReaderError(
            f"`parts` must be texts and pictures, but {row.name} has {kind}, which this model is not shown. Give "
            "references to images, or PIL images."
        )


def decoded(row: Row, videos: bool = False) -> list[Any]:
    """The pictures of a row, but for videos, as PIL images in RGB; arguments and errors as in `check_media`."""
    check_media(row, videos)
    return [part.image() if isinstance(part, MediaRef) else _in_rgb(part, row.name) for part in row.stills]


def _in_rgb(picture: Any, name: str) -> Any:
    return picture if picture.mode == "RGB" else to_eight_bits(picture, name).convert("RGB")
