"""Models with a chat template: whatever `AutoModelForImageTextToText` loads beside such a processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from weft.eval.readers.errors import ReaderError
from weft.eval.readers.one_question import pictures_of
from weft.eval.readers.one_sequence import Encoded, OneSequence, Piece
from weft.eval.readers.reader import Limits
from weft.eval.readers.rows import Row, Turn
from weft.eval.readers.template import Template, chat_template


class ChatReader(OneSequence):
    """Words a prompt by the model's own template, and learns what the assistant says."""

    name: ClassVar[str] = "chat"

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._template = Template(processor, config)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return "AutoModelForImageTextToText does not know its type"
        if getattr(processor, "image_processor", None) is None or not hasattr(processor, "tokenizer"):
            return f"its processor ({type(processor).__name__}) does not read pictures and texts"
        if chat_template(processor) is None:
            return "its processor has no chat template"
        return None

    @property
    def reads_several(self) -> bool:
        """Always: the template marks each."""
        return True

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        super().check(row)
        if row.learn == "all":
            self._before_answers(row)
        # The template writes one mark for each picture: only a text can bring more. A million rows are looked at here.
        if any(self._template.picture in turn.text for turn in row.turns):
            self._template.check_pictures(self._template.prompt(row.turns), row)

    def _prompts(self, rows: Sequence[Row], taught: bool) -> Encoded:
        prompts = []
        for row in rows:
            known = self._before_answers(row) if taught and row.learn == "all" else row.turns
            prompts.append(self._template.prompt(known))
            self._template.check_pictures(prompts[-1], row)
        own = {"add_special_tokens": False} if self._template.begins else {}
        return self._encoded(prompts, pictures_of(rows), **own)

    def _before_answers(self, row: Row) -> Sequence[Turn]:
        """The turns before the first answer to learn, which must show all pictures: what follows is read as text."""
        first = next((place for place, turn in enumerate(row.turns) if _is_taught(turn)), None)
        later = sum(not isinstance(part, str) for turn in row.turns[first:] for part in turn.parts)
        if first is not None and later:
            raise ReaderError(
                f"`learn` may be 'all' only where every picture comes before the first answer, but {row.name} shows "
                f"{later} later. Set learn: last, and give a row for each answer."
            )
        return row.turns[:first]

    def _behind(self, row: Row, prompt: dict[str, Tensor]) -> list[Piece]:
        pieces: list[Piece] = []
        if row.learn == "all":
            pieces = self._earlier(row)
        return [*pieces, Piece(self._answer(row.answer or ""), True)]

    def _answer(self, text: str) -> list[int]:
        return self._tokens(self._template.lead + text + self._template.end)

    def _earlier(self, row: Row) -> list[Piece]:
        """Earlier answers, each tokenised apart as the model would write it, and what stands between them."""
        first = len(self._before_answers(row))
        places = [
            place for place, turn in enumerate(row.turns) if turn.role == "assistant" and place >= first
        ]
        pieces = []
        for place, following in zip(places, [*places, len(row.turns)][1:], strict=True):
            answer = self._template.lead + row.turns[place].text + self._template.end
            written = self._template.said(row.turns[: place + 1])
            read = self._template.prompt(row.turns[:place])
            asked = self._template.prompt(row.turns[:following])
            if not (read + answer).startswith(written.rstrip()) or not asked.startswith(written):
                raise ReaderError(
                    "`learn` may be 'all' only where the chat template writes earlier answers as it writes the last, "
                    f"but for {row.name} it does not. Set learn: last."
                )
            pieces += [
                Piece(self._tokens(answer), row.turns[place].learned),
                Piece(self._tokens(asked[len(written) :]), False),
            ]
        return pieces

    def _filling(self, name: str) -> int:
        return 0


def _is_taught(turn: Turn) -> bool:
    return turn.role == "assistant" and turn.learned


READER = ChatReader
