"""Rows with conversations in the popular forms: LLaVA, sharegpt, chat messages, typed parts, prompt and completion."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from weft.data.media.reference import Kind, MediaRef
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, media_reference

Columns = Mapping[str, Sequence[str]]
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
IMAGE, VIDEO = "<image>", "<video>"
ROLES = {
    "system": SYSTEM,
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
}
COLUMNS: Columns = {
    "id": ("id",),
    "messages": ("messages", "conversations"),
    "images": ("images", "image"),
    "videos": ("videos", "video"),
    "system": ("system",),
    "prompt": ("prompt",),
    "completion": ("completion",),
}
"""What `columns` may name, and the columns that are looked for by themselves."""
UNREAD = ("audios", "audio")
_MARKS = {"image": IMAGE, "video": VIDEO}
_DATA = re.compile(r"data:image/[\w.+-]+;base64,")
_HELD = ("image", "image_url", "video", "video_url", "url", "path", "bytes")


class _Shown(NamedTuple):
    """A place for an image or a video, and what is shown where it stands there itself."""

    kind: Kind
    value: Any = None


class _Said(NamedTuple):
    role: str
    parts: tuple[str | _Shown, ...]
    learned: bool


class Talk(NamedTuple):
    """What a row says, in the fields of a `Conversation`."""

    roles: tuple[str, ...]
    parts: tuple[tuple[str | None, ...], ...]
    images: tuple[MediaRef, ...]
    learned: tuple[int, ...]


def talk_of(row: Row, columns: Columns, media: MediaFolder | None) -> Talk:
    """Return what a row says, in whichever form; `columns` are the keys of `COLUMNS` to the columns that may hold each.

    Raises:
        MalformedRecordError: If there are no turns, one is no turn or empty, or images and places for them differ in
            number.
        UnsafePathError: If a path leaves its folder.
    """
    said = list(_said(row, columns))
    return Talk(
        tuple(turn.role for turn in said),
        tuple(tuple(part if isinstance(part, str) else None for part in turn.parts) for turn in said),
        _images(row, columns, media, said),
        tuple(place for place, turn in enumerate(said) if turn.learned),
    )


def column_of(row: Row, columns: Columns, name: str) -> str | None:
    """Return the column of a row that holds a part of the conversation, a key of `COLUMNS`, or None."""
    return next((column for column in columns[name] if row.has(column)), None)


def _said(row: Row, columns: Columns) -> Iterator[_Said]:
    for name in UNREAD:
        if row.has(name) and row.field(name):
            row.fail(f"must show images and videos alone, but has `{name}`")
    system = column_of(row, columns, "system")
    if system is not None and row.text(system).strip():
        yield _Said(SYSTEM, (row.text(system),), False)
    column = column_of(row, columns, "messages")
    if column is not None:
        yield from _turns(row, columns, column, row.items(column), True)
        return
    asked, completion = column_of(row, columns, "prompt"), column_of(row, columns, "completion")
    if asked is None:
        names = [column for name in ("messages", "prompt") for column in columns[name]]
        row.fail(
            f"must have a conversation in one of {', '.join(names)}, but has only {', '.join(row.value)}"
        )
    yield from _turns(row, columns, asked, _messages(row, asked, USER), False)
    if completion is not None:
        yield from _turns(row, columns, completion, _messages(row, completion, ASSISTANT), True)


def _images(
    row: Row, columns: Columns, media: MediaFolder | None, said: Sequence[_Said]
) -> tuple[MediaRef, ...]:
    shown = [part for turn in said for part in turn.parts if isinstance(part, _Shown)]
    left, named = {}, {}
    for kind, mark in _MARKS.items():
        name = f"{kind}s"
        column = column_of(row, columns, name)
        value = [] if column is None or row.field(column) is None else row.field(column)
        given = value if isinstance(value, list) else [value]
        places = sum(part.kind == kind and part.value is None for part in shown)
        if places != len(given):
            row.fail(
                f"must have one `{mark}` for each {kind}, but has {places} for {len(given)} in `{column or name}`"
            )
        left[kind], named[kind] = iter(given), column or name
    values = [next(left[part.kind]) if part.value is None else part.value for part in shown]
    return tuple(
        _medium(row, named[part.kind], media, value, f"{part.kind} {place}", part.kind)
        for place, (part, value) in enumerate(zip(shown, values, strict=True), 1)
    )


def _medium(row: Row, column: str, media: MediaFolder | None, value: Any, which: str, kind: Kind) -> MediaRef:
    if isinstance(value, str) and (coded := _DATA.match(value)):
        try:
            value = base64.b64decode(value[coded.end() :], validate=True)
        except binascii.Error as error:
            row.fail(f"{which} must be written in base64, but {error}")
    if isinstance(value, str):
        if value.startswith(("http://", "https://")):
            row.fail(f"{which} must be a file of the data set, but is {value!r}: download it first")
        value = value.removeprefix("file://")
    return media_reference(row, column, value, media, kind, which=f", {which}")


def _messages(row: Row, column: str, role: str) -> list[Any]:
    """The turns of one side of prompt and completion, which may be a text alone."""
    value = row.field(column)
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _turns(row: Row, columns: Columns, column: str, values: Sequence[Any], learned: bool) -> Iterator[_Said]:
    films = column_of(row, columns, "videos")
    kinds: list[Kind] = ["image"]
    if films is not None and row.field(films):
        kinds.append("video")
    for place, value in enumerate(values, 1):
        what = f"turn {place} of `{column}`"
        if not isinstance(value, Mapping):
            row.fail(f"{what} must be an object with `role` and `content`, but is {value!r}")
        said_by, content = _first(value, "role", "from"), _first(value, "content", "value")
        role = ROLES.get(str(said_by))
        if role is None:
            row.fail(f"{what} must be of {', '.join(ROLES)}, but is of {said_by!r}")
        if content is None and role == ASSISTANT and place == len(values):
            return  # The answer is hidden.
        parts = tuple(_parts(row, what, content, kinds))
        if role == ASSISTANT and not all(isinstance(part, str) for part in parts):
            row.fail(f"{what} must be text, as answers are, but has an image or a video")
        if not any(isinstance(part, _Shown) or part.strip() for part in parts):
            row.fail(f"{what} must say something, but is empty")
        counts = value.get("weight") != 0
        if role == ASSISTANT and place == len(values) and not counts:
            row.fail(f"{what} must be learned, as the last answer is, but has weight 0")
        yield _Said(role, parts, role == ASSISTANT and learned and counts)


def _first(value: Mapping[Any, Any], *keys: str) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _parts(row: Row, what: str, content: Any, kinds: Sequence[Kind]) -> Iterator[str | _Shown]:
    """The texts, images and videos of a turn; a text marks what the row has a column for, and images in any case."""
    if isinstance(content, list):
        for part in content:
            yield from _typed(row, what, part)
        return
    text = row.writing(what, content)
    # A line break beside the media that a turn begins or ends with belongs to them.
    marks = [_MARKS[kind] for kind in kinds]
    either = "|".join(marks)
    text = re.sub(rf"\A(?:(?:{either})\n?)+", lambda found: found.group().replace("\n", ""), text)
    text = re.sub(rf"(?:\n?(?:{either}))+\Z", lambda found: found.group().replace("\n", ""), text)
    for piece in re.split(rf"({either})", text):
        if piece in marks:
            yield _Shown(kinds[marks.index(piece)])
        elif piece:
            yield piece


def _typed(row: Row, what: str, part: Any) -> Iterator[str | _Shown]:
    """A text, an image or a video that is told by its type, or by the name of its one key."""
    if isinstance(part, str):
        yield part
        return
    if not isinstance(part, Mapping):
        row.fail(f"{what} must hold texts and objects with a `type`, but holds {part!r}")
    kind = part.get("type") or next((key for key in ("text", *_MARKS) if part.get(key) is not None), None)
    if kind == "text":
        yield row.writing(what, part.get("text"))
    elif (medium := str(kind).removesuffix("_url")) in _MARKS:
        held = _first(part, *_HELD)
        shown = held.get("url", held) if isinstance(held, Mapping) else held
        yield _Shown("video" if medium == "video" else "image", shown)
    else:
        row.fail(f"{what} must hold parts of type text, image or video, but holds one of {kind!r}")
