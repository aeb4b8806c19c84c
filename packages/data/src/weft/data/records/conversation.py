"""Conversations: turns of texts and images, some of which are answers to learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from weft.data.errors import InvalidArgumentError, require_known
from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, register_record_type
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, columns_without
from weft.data.records.turns import ASSISTANT, COLUMNS, IMAGE, SYSTEM, UNREAD, USER, VIDEO, column_of, talk_of


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Record):
    """What a user and an assistant say in turn, after what the system says, if anything.

    Args:
        roles: Who says each turn: "system", "user" or "assistant".
        parts: For each turn its texts, with None where an image or a video goes.
        images: The images and videos, in the order in which they appear; none in a conversation of texts alone.
        learned: Places of the turns that are answers to learn. Where the answer is hidden, the user's is the last turn.

    Raises:
        InvalidArgumentError: If the roles do not follow one another so, or images and places for them differ in number.
    """

    record_type: ClassVar[str] = "conversation"
    roles: tuple[str, ...]
    parts: tuple[tuple[str | None, ...], ...]
    images: tuple[MediaRef, ...] = ()
    learned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        said = self.roles[1:] if self.roles[:1] == (SYSTEM,) else self.roles
        due = tuple((USER, ASSISTANT)[place % 2] for place in range(max(1, len(said))))
        if said != due or len(self.parts) != len(self.roles):
            raise InvalidArgumentError(
                f"the turns must be those of user and assistant, one after the other, behind at most one of the "
                f"system, but are of {', '.join(self.roles) or 'nobody'}. Join turns that one side says in a row."
            )
        places = sum(part is None for turn in self.parts for part in turn)
        if places != len(self.images):
            raise InvalidArgumentError(
                f"there must be one `{IMAGE}` for each image, but there are {places} for {len(self.images)}. Write "
                "one wherever an image stands."
            )
        if any(not 0 <= place < len(self.roles) or self.roles[place] != ASSISTANT for place in self.learned):
            raise InvalidArgumentError(f"`learned` must be places of answers, but is {self.learned}.")

    @classmethod
    def row_mapping(cls, columns: Mapping[str, Any], media: Any) -> "TurnMapping":
        """See `Record.row_mapping`."""
        return TurnMapping(columns, media)

    @property
    def turns(self) -> tuple[tuple[str, tuple[str | MediaRef, ...]], ...]:
        """Who says each turn, and its texts and images in order."""
        left = iter(self.images)
        return tuple(
            (role, tuple(next(left) if part is None else part for part in parts))
            for role, parts in zip(self.roles, self.parts, strict=True)
        )

    @property
    def answer(self) -> str | None:
        """The last answer, or None where it is hidden."""
        return self._text(len(self.roles) - 1) if self.roles[-1] == ASSISTANT else None

    @property
    def asked(self) -> str:
        """The texts of all turns before the last answer, a line each."""
        count = len(self.roles) - (self.roles[-1] == ASSISTANT)
        return "\n".join(self._text(place) for place in range(count))

    def references(self) -> tuple[str, ...]:
        """The last answer."""
        return () if self.answer is None else (self.answer,)

    def summary(self) -> str:
        """All turns, images as `<image>` and videos as `<video>`."""
        marks = iter([VIDEO if shown.kind == "video" else IMAGE for shown in self.images])
        shown = ("".join(next(marks) if part is None else part for part in parts) for parts in self.parts)
        return " -> ".join(shown) + ("" if self.roles[-1] == ASSISTANT else " -> ?")

    def _text(self, place: int) -> str:
        return "".join(part for part in self.parts[place] if part is not None)


class TurnMapping:
    """Which column holds which part of a conversation, where it is another one than people usually take.

    Raises:
        UnknownNameError: For a part that is none of `messages`, `images`, `videos`, `system`, `prompt`, `completion`
            and `id`.
    """

    kind: ClassVar[type[Record]] = Conversation

    def __init__(self, columns: Mapping[str, str | Sequence[str]], media: MediaFolder | None = None) -> None:
        require_known("part of a conversation in `columns`", COLUMNS, *columns)
        named = {name: (told,) if isinstance(told, str) else tuple(told) for name, told in columns.items()}
        self._columns = {**COLUMNS, **named}
        self._media = media

    def record(self, row: Row, fallback_id: str) -> Conversation:
        """Return the conversation of a row with named columns; those that it does not need go to `extra`.

        Raises:
            MalformedRecordError: If it has no turns, they do not follow one another, an answer is empty, or images and
                their places differ in number.
            UnsafePathError: If a path leaves its folder.
        """
        row.columns()
        identity = column_of(row, self._columns, "id")
        used = {column for columns in self._columns.values() for column in columns}
        try:
            return Conversation(
                id=row.identity(identity) if identity else fallback_id,
                extra=columns_without(row, used | set(UNREAD)),
                **talk_of(row, self._columns, self._media)._asdict(),
            )
        except InvalidArgumentError as error:
            row.fail(str(error).removesuffix("."))
