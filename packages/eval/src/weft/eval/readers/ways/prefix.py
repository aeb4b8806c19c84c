"""Models without a template, prompt and answer in one sequence: PaliGemma, BLIP-2, InstructBLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import OneQuestion, pictures_of
from weft.eval.readers.one_sequence import IDS, Encoded, OneSequence, Piece, image_token
from weft.eval.readers.processor import blank, processed, unread
from weft.eval.readers.rows import Row
from weft.eval.readers.template import chat_template

KINDS = "token_type_ids"


class PrefixReader(OneQuestion, OneSequence):
    """Reads pictures and a prompt, and learns what follows; the prompt's words are the recipe's alone.

    Every row shows a picture, for these models read no text without one.
    """

    name: ClassVar[str] = "prefix"

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._mark = _picture_mark(config, processor)
        self._kind = _kind_of_answers(processor, self._mark)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return "AutoModelForImageTextToText does not know its type"
        if config.get_text_config(decoder=True).is_encoder_decoder:
            return "its language model is an encoder and a decoder"
        if image_token(config) is None:
            return "its pictures do not stand among the tokens"
        if (fault := unread(processor)) is not None:
            return fault
        if chat_template(processor) is not None:
            return "its processor has a chat template"
        if not _shows_by_itself(config, processor):
            return "its processor has no chat template, and puts no picture before a text by itself"
        return None

    @property
    def reads_several(self) -> bool:
        """Where pictures are marked in the text; other models read one."""
        return bool(self._mark)

    @property
    def _shown(self) -> tuple[int, int | None]:
        return 1, None if self._mark else 1

    def _prompts(self, rows: Sequence[Row], taught: bool) -> Encoded:
        self._check(rows)
        return self._encoded([self._mark * len(row.pictures) + row.text for row in rows], pictures_of(rows))

    def _answers(self, row: Row, prompt: dict[str, Tensor]) -> list[Piece]:
        last = self.processor.tokenizer.decode(prompt[IDS][-1:])
        return [Piece(self._answer(row.answer or "", "" if last[-1:].isspace() else " "), True)]

    def _answer(self, text: str, blank: str = " ") -> list[int]:
        return self._tokens(self._ended(blank + text))

    def _filling(self, name: str) -> int:
        return self._kind if name == KINDS else 0


def _shows_by_itself(config: Any, processor: Any) -> bool:
    """Whether a processor puts pictures before a text that marks none; others need a template to say where they are."""
    try:
        made = processed(processor, [[blank()]], ["a"])
    except ValueError:
        return False
    return bool((made[IDS] == image_token(config)).any())


def _picture_mark(config: Any, processor: Any) -> str:
    """What is written in a text for a picture; empty where the processor puts pictures before the text itself."""
    token = getattr(processor, "image_token", None)
    mark, number = str(getattr(token, "content", token) or ""), image_token(config)

    def written(count: int) -> int:
        made = processed(processor, [[blank()] * count], [mark * count + "a"])
        return int((made[IDS] == number).sum())

    try:
        return mark if written(2) == 2 * written(1) else ""
    except ValueError:
        # It wrote a mark beside ours, and found one mark too many.
        return ""


def _kind_of_answers(processor: Any, mark: str) -> int:
    """The `token_type_ids` of an answer, as the processor writes them where it takes answers itself."""
    plain = processed(processor, [[blank()]], [f"{mark}a"])
    if KINDS not in plain:
        return 0
    # Releases of transformers name this argument, or take it among others.
    made = processed(processor, [[blank()]], [f"{mark}a"], suffix=["a"])
    taken = made[IDS].shape[1] > plain[IDS].shape[1]
    return int(made[KINDS][0, -1]) if taken else 0


READER = PrefixReader
