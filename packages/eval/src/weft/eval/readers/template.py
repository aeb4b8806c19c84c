"""What a chat template does, found by asking it: how an answer begins and ends, and how a picture is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from weft.eval.readers.answer_tokens import stop_tokens
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.rows import Row, Turn
from weft.eval.readers.video_frames import is_video

_SAID, _ANSWERED = "weftsaid", "weftanswered"


def chat_template(processor: Any) -> Any:
    """The template of a processor or of its tokenizer, or None."""
    own = getattr(processor, "chat_template", None)
    return own or getattr(getattr(processor, "tokenizer", None), "chat_template", None)


class Template:
    """The chat template of a processor.

    Args:
        processor: The processor.
        config: The model's config.

    Raises:
        ReaderError: If the template does not write what is said, or no pictures.

    Attributes:
        lead: What comes between the end of a prompt and an answer.
        end: What ends an answer: what the template writes after it, with a token that stops generation.
        picture: A piece of text that is written once for each picture.
        video: A piece of text that is written once for each video, or "" where the template writes none.
        begins: Whether the template writes the token that begins a sequence.
    """

    def __init__(self, processor: Any, config: Any) -> None:
        self._processor = processor
        self._template = None if getattr(processor, "chat_template", None) else chat_template(processor)
        tokenizer = processor.tokenizer
        asked = [_message("user", [_SAID])]
        prompt = self._rendered(asked, True)
        whole = self._rendered([*asked, _message("assistant", [_ANSWERED])], False)
        if _SAID not in prompt or whole.count(_ANSWERED) != 1:
            raise ReaderError(
                "`chat_template` must write what user and assistant say when it is given as typed parts, but this one "
                f"writes {whole!r}. Give the processor a template that does."
            )
        before, behind = whole.split(_ANSWERED)
        self.lead = before[len(prompt) :] if before.startswith(prompt) else ""
        stops = stop_tokens(tokenizer, config)
        self.end = behind if any(stop in behind for stop in stops) else behind.rstrip() + tokenizer.eos_token
        self.picture, self.video = self._marks(tokenizer)
        self.begins = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)

    def prompt(self, turns: Sequence[Turn]) -> str:
        """What is read before an answer, after what was said."""
        return self._rendered([_message(turn.role, turn.parts) for turn in turns], True)

    def said(self, turns: Sequence[Turn]) -> str:
        """What turns are written as, an answer being the last of them."""
        return self._rendered([_message(turn.role, turn.parts) for turn in turns], False)

    def check_pictures(self, prompt: str, row: Row) -> None:
        """Refuse a prompt that shows more or fewer pictures or videos than its row has.

        Raises:
            ReaderError: Naming the row.
        """
        for mark, shown, what in ((self.picture, row.stills, "pictures"), (self.video, row.videos, "videos")):
            if mark and (written := prompt.count(mark)) != len(shown):
                raise ReaderError(
                    f"the {what} of a row must agree with its prompt, but {row.name} has {len(shown)} for {written} "
                    f"{mark!r} in the text. Take {mark!r} out of the text; the template writes it."
                )

    def _marks(self, tokenizer: Any) -> tuple[str, str]:
        """What is written once for each picture, and for each video; "" for what is not written at all."""
        written = [self._written(kind) for kind in ("image", "video")]
        if not written[0]:
            raise ReaderError(
                "`chat_template` must write something for every picture, but this one writes "
                f"{self._shown('image', 2)!r} for two. Give the processor a template for pictures."
            )
        special = [token.content for token in tokenizer.added_tokens_decoder.values()]
        picture, video = (
            max((token for token in special if token in own and token not in other), key=len, default="")
            for own, other in (written, reversed(written))
        )
        return picture or written[0][: len(written[0]) // 2].strip(), video

    def _shown(self, kind: str, count: int) -> str:
        return self._rendered([{"role": "user", "content": [{"type": kind}] * count}], True)

    def _written(self, kind: str) -> str:
        """What is written for each medium of a kind, in whole tokens, or "" if that is nothing."""
        try:
            one, two = (self._shown(kind, count) for count in (1, 2))
        except (TypeError, ValueError, TemplateError):
            return ""  # a template of pictures alone may refuse videos
        length = len(two) - len(one)
        place = next((k for k in range(len(two)) if two[:k] + two[k + length :] == one), None)
        # Cut out of the middle, the piece may begin in the middle of a mark: the token in it is whole.
        return "" if length <= 0 or place is None else two[place : place + length] * 2

    def _rendered(self, messages: Sequence[dict[str, Any]], asks: bool) -> str:
        return self._processor.apply_chat_template(
            messages, chat_template=self._template, add_generation_prompt=asks, tokenize=False
        )


def _message(role: str, parts: Sequence[Any]) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "video" if is_video(part) else "image"}
        for part in parts
    ]
    return {"role": role, "content": content}
