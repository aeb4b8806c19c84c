"""How a task words its records: `ask` and `system` are data, filled with few fields of a record."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

from weft.core.errors import unknown
from weft.data import Conversation, Record
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.rows import Learn, Role, Row, Turn

PICTURE, VIDEO = "image", "video"
TEXT = "text"
_TEXT_ALONE = "{text}"
# What a record is asked for; none of it may be told.
_HIDDEN = {"answers", "answer", "captions", "label", "class_name", "soft_targets"}
_WORDS = {"str", "int", "float", "tuple[str, ...]"}
_found: dict[type[Record], tuple[str, ...]] = {}


@dataclass(frozen=True)
class Wording:
    """How the records of one task are put to a model.

    Args:
        ask: What is said, such as `"{question} Answer with one word."`. `{text}` is what the record's kind reads,
            other words in braces are its fields; `{image}` or `{video}` places a picture or a video, in the order
            of the record. Without it they come first.
        system: What is said before, or "" for nothing. A conversation that has a text of the system keeps its own.
        learn: See `Row`.

    Raises:
        ReaderError: If braces do not match.
    """

    ask: str = _TEXT_ALONE
    system: str = ""
    learn: Learn = "last"

    def __post_init__(self) -> None:
        _pieces("ask", self.ask)
        _pieces("system", self.system)

    def check(self, kind: type[Record], fields: Iterable[str] = ()) -> None:
        """Refuse words that a type of record has no field for.

        Args:
            kind: The type.
            fields: Further words, such as the keys of `extra` that every record has.

        Raises:
            ReaderError: With near matches, or if conversations, which say everything that is asked, have an `ask`.
        """
        if issubclass(kind, Conversation) and self.ask != _TEXT_ALONE:
            raise ReaderError(
                f"`ask` must be left out of conversations, whose turns say what is asked, but is {self.ask!r}. Say in "
                "`system` what holds for all of them."
            )
        known = {TEXT, PICTURE, VIDEO, *word_fields(kind), *fields}
        for name, wording in (("ask", self.ask), ("system", self.system)):
            for _, word in _pieces(name, wording):
                if word in _HIDDEN:
                    raise ReaderError(
                        f"`{name}` must not tell what is asked for, but says {{{word}}}. Choose one of "
                        f"{', '.join(sorted(known))}."
                    )
                if word is not None and word not in known:
                    raise ReaderError(unknown(f"a word of `{name}`", word, known))

    @cached_property
    def _fields(self) -> frozenset[str]:
        """The fields of records that it names."""
        pieces = (*_pieces("ask", self.ask), *_pieces("system", self.system))
        return frozenset(word for _, word in pieces if word is not None) - {TEXT, PICTURE, VIDEO}

    def row(
        self,
        record: Record,
        task: str,
        text: str,
        answer: str | None = None,
        weight: float = 1.0,
        **fields: Any,
    ) -> Row:
        """Word a record.

        Args:
            record: The record.
            task: Name of its task.
            text: What its kind reads; `{text}` stands for it.
            answer: What should be written, or None.
            weight: Weight of its loss.
            **fields: Further fields of `Row`.

        Raises:
            ReaderError: If a word is not known, `{image}` and the pictures differ in number, or `text` of a
                conversation is not its own.
        """
        words: dict[str, Any] = {TEXT: text}
        if self._fields or isinstance(record, Conversation):  # asked for every row
            extra = {
                key: value for key, value in record.extra.items() if isinstance(value, str | int | float)
            }
            self.check(type(record), extra)
            words = {**extra, **{key: getattr(record, key) for key in word_fields(type(record))}, **words}
        name, pictures = f"{task}/{record.id}", list(record.media_refs())
        before = (Turn("system", _filled(self.system, words, [], name)),) if self.system else ()
        if isinstance(record, Conversation):
            if text != record.asked:
                raise ReaderError(
                    f"`prompt` must be left out of conversations, whose turns say what is asked, but {name} is asked "
                    f"{text!r}. Say in `system` what holds for all of them."
                )
            turns = _said(record)
            own = turns[0].role == "system"
            return Row(name, task, turns if own else (*before, *turns), answer, weight, self.learn, **fields)
        parts = _filled(self.ask, words, pictures, name)
        return Row(name, task, (*before, Turn("user", parts)), answer, weight, self.learn, **fields)


def _said(record: Conversation) -> tuple[Turn, ...]:
    """The turns before the last answer."""
    turns = tuple(
        Turn(cast("Role", role), parts, place in record.learned)
        for place, (role, parts) in enumerate(record.turns)
    )
    return turns if record.answer is None else turns[:-1]


def word_fields(kind: type[Record]) -> tuple[str, ...]:
    """The fields of a type of record that `ask` may name: those of text and numbers, and lists of texts."""
    if kind not in _found:  # asked for every row
        _found[kind] = tuple(
            field.name
            for field in dataclasses.fields(kind)
            if field.name not in _HIDDEN
            and str(field.type).replace("builtins.", "") in _WORDS | {f"<class '{word}'>" for word in _WORDS}
        )
    return _found[kind]


def _filled(wording: str, words: dict[str, Any], pictures: Sequence[Any], name: str) -> tuple[Any, ...]:
    """Texts and pictures of a wording, neighbouring texts joined."""
    pieces = _pieces("ask", wording)
    places = sum(word in (PICTURE, VIDEO) for _, word in pieces)
    if places and places != len(pictures):
        raise ReaderError(
            f"`ask` must have one {{image}} for each picture, but {name} has {len(pictures)} for {places}. Leave "
            "{image} out, so that the pictures come first, or write it as often as there are pictures."
        )
    left = list(pictures)
    parts: list[Any] = [] if places else [*left]
    text = ""
    for literal, word in pieces:
        text += literal
        if word in (PICTURE, VIDEO):
            parts += [*([text] if text else []), left.pop(0)]
            text = ""
        elif word is not None:
            value = words[word]
            text += ", ".join(value) if isinstance(value, tuple) else str(value)
    return (*parts, text) if text else tuple(parts)


@cache
def _pieces(name: str, wording: str) -> tuple[tuple[str, str | None], ...]:
    """Each literal text with the word after it, None after the last."""
    pieces = []
    try:
        for literal, word, form, conversion in string.Formatter().parse(wording):
            if form or conversion:
                raise ValueError(f"{{{word}}} has a format")
            pieces.append((literal, word))
    except ValueError as error:
        raise ReaderError(
            f"`{name}` must hold words in braces, such as {{question}}, but is {wording!r} ({error}). Write {{{{ and "
            "}}}} for braces."
        ) from None
    return tuple(pieces)
