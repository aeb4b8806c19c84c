"""Models with a chat template: whatever `AutoModelForImageTextToText` loads beside such a processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from weft.eval.readers.cross_attended import cross_attends
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import pictures_of
from weft.eval.readers.one_sequence import IDS, Encoded, OneSequence, Piece, image_token
from weft.eval.readers.processor import blank, unread
from weft.eval.readers.reader import Reader
from weft.eval.readers.rows import Row, ask, check_media
from weft.eval.readers.template import Template, chat_template
from weft.eval.readers.video_frames import FramesRule, blank_film


class ChatReader(OneSequence):
    """Words a prompt by the model's own template, and learns what the assistant says."""

    name: ClassVar[str] = "chat"
    reads_several = True  # the template marks each

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._template = Template(processor, config)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return "AutoModelForImageTextToText does not know its type"
        bare = chat_template(processor) is None
        return unread(processor) or ("its processor has no chat template" if bare else None)

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        self._check_media(row)
        if row.learn == "all":
            self._apart(row)
        # The template writes one mark for each picture: only a text can bring more. A million rows are looked at here.
        marks = [mark for mark in (self._template.picture, self._template.video) if mark]
        if any(mark in turn.text for turn in row.turns for mark in marks):
            self._template.check_pictures(self._template.prompt(row.turns), row)

    def least_length(self, row: Row) -> int:
        """See `Reader.least_length`; earlier answers are counted as the template writes them."""
        prompt = self._template.prompt(row.turns)
        words = self.processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return len(words) + self.answer_length(row.answer or "")

    def _prompts(self, rows: Sequence[Row], taught: bool) -> Encoded:
        apart = [self._apart(row) if taught else [self._template.prompt(row.turns)] for row in rows]
        # Where an answer is, a special token is: it separates the words around it as an answer's end does.
        gap = self.processor.tokenizer.eos_token
        texts = [gap.join(parts) for parts in apart]
        for row, text in zip(rows, texts, strict=True):
            self._template.check_pictures(text, row)
            self._check_media(row)
        return with_gaps(self._of_texts(texts, rows), apart, self.processor.tokenizer)

    def _check_media(self, row: Row) -> None:
        check_media(row, videos=True)
        if row.videos and (fault := self._fault_of_videos) is not None:
            raise ReaderError(
                f"`parts` must be texts and pictures, but {row.name} has a video, which this model is not shown: "
                f"{fault}. Give references to images, or PIL images."
            )

    @cached_property
    def _fault_of_videos(self) -> str | None:
        """Why the model is not shown videos, or None if it is."""
        if getattr(self.processor, "video_processor", None) is None:
            return "its processor takes none"
        if not self._template.video:
            return "its chat template marks none by a token of its own"
        try:
            media = self._probed([ask("a", [blank()]), ask("a", [blank_film()])]).media
        except (ValueError, TypeError, RuntimeError, ImportError, IndexError, KeyError) as error:
            return f"its processor does not show one beside a picture ({error})"
        apart = any(name.startswith("pixel") and "video" in name for name in media)
        # Frames that are among the pictures must be pictures like others, one after another.
        pixels = media.get("pixel_values")
        among = pixels is not None and pixels.dim() == 4 and len(pixels) > 2
        return None if apart or among else "its processor puts frames where the pictures of other rows stand"

    def _probed(self, rows: Sequence[Row]) -> Encoded:
        return self._of_texts([self._template.prompt(row.turns) for row in rows], rows)

    def _of_texts(self, texts: Sequence[str], rows: Sequence[Row]) -> Encoded:
        own = {"add_special_tokens": False} if self._template.begins else {}
        films = [self.rule.film(video) for row in rows for video in row.videos]
        return self._encoded(texts, pictures_of(rows, videos=True), films, **own)

    def showing(self, rule: FramesRule) -> Reader:
        """See `Reader.showing`."""
        if self._fault_of_videos is not None:
            return super().showing(rule)
        if rule.fps is not None:
            try:
                self._probed([ask("a", [blank_film(frames)]) for frames in (2, 6)])
            except (ValueError, TypeError, RuntimeError) as error:
                raise ReaderError(
                    f"`fps` must be left out for {self.title} whose processor shows equally many frames of every video "
                    f"({error}). Give `frames`."
                ) from None
        return self.changed(rule=rule)

    def _apart(self, row: Row) -> list[str]:
        """What is read before each answer that is learned, or read after one that is, but for the answers."""
        if row.learn != "all":
            return [self._template.prompt(row.turns)]
        places = _answered(row)
        first = next(iter(places), len(row.turns))
        later = sum(not isinstance(part, str) for turn in row.turns[first:] for part in turn.parts)
        if later and (fault := self._fault_of_later(len(row.pictures) - later)) is not None:
            raise ReaderError(
                f"`learn` may be 'all' only where every picture comes before the first answer, but {row.name} shows "
                f"{later} later, and this model {fault}. Set learn: last, and give a row for each answer."
            )
        parts = [self._template.prompt(row.turns[:first])]
        for place, following in zip(places, [*places, len(row.turns)][1:], strict=True):
            answer = self._ended_as_said(row.turns[place].text)
            written = self._template.said(row.turns[: place + 1])
            read = self._template.prompt(row.turns[:place])
            asked = self._template.prompt(row.turns[:following])
            if not (read + answer).startswith(written.rstrip()) or not asked.startswith(written):
                raise ReaderError(
                    "`learn` may be 'all' only where the chat template writes earlier answers as it writes the last, "
                    f"but for {row.name} it does not. Set learn: last."
                )
            parts.append(asked[len(written) :])
        return parts

    def _fault_of_later(self, before: int) -> str | None:
        """Why a prompt of some pictures is not read alike where more of them follow, or None if it is."""
        alike, beside = self._shown_apart
        if not alike:
            return "shows a picture otherwise where another follows"
        return "looks at pictures before they come" if beside and not before else None

    @cached_property
    def _shown_apart(self) -> tuple[bool, bool]:
        """Whether a picture becomes the same tokens where another follows, and whether pictures stand beside them."""
        pictures = [blank((96, 320)), blank((320, 96))]
        shown = [self._prompts([ask("a", pictures[:count])], taught=False).sequences[0] for count in (1, 2)]
        one, two = (row[IDS].tolist() for row in shown)
        token = image_token(self.config)
        end = max((place for place, own in enumerate(one) if own == token), default=-1) + 1
        return end > 0 and one[:end] == two[:end], cross_attends(shown[0])

    def _answers(self, row: Row, prompt: dict[str, Tensor]) -> list[Piece]:
        earlier = [row.turns[place] for place in _answered(row)] if row.learn == "all" else []
        said = [Piece(self._answer(turn.text), turn.learned) for turn in earlier]
        return [*said, Piece(self._answer(row.answer or ""), True)]

    def _answer(self, text: str) -> list[int]:
        return self._tokens(self._ended_as_said(text))

    def _ended_as_said(self, text: str) -> str:
        return self._template.lead + text + self._template.end

    def _filling(self, name: str) -> int:
        return 0


def _answered(row: Row) -> list[int]:
    """The turns that are answers, from the first that is learned."""
    said = [place for place, turn in enumerate(row.turns) if turn.role == "assistant"]
    first = next((place for place in said if row.turns[place].learned), len(row.turns))
    return [place for place in said if place >= first]


def with_gaps(encoded: Encoded, apart: Sequence[Sequence[str]], tokenizer: Any) -> Encoded:
    """Prompts without the special tokens that stand for answers, and with their places.

    The texts of each row, which are `apart`, are joined by the token that ends a text.
    """
    sequences, gaps = [], []
    for sequence, texts in zip(encoded.sequences, apart, strict=True):
        ends = (sequence[IDS] == tokenizer.eos_token_id).nonzero().flatten().tolist()
        written = [text.count(tokenizer.eos_token) for text in texts]
        # A tokenizer may begin every text with that token.
        own = len(ends) - sum(written) - len(texts) + 1
        stand_in = [ends[own + sum(written[:k]) + k - 1] for k in range(1, len(texts))]
        kept = torch.ones(len(sequence[IDS]), dtype=torch.bool)
        kept[stand_in] = False
        sequences.append({name: value[kept] for name, value in sequence.items()})
        gaps.append([*(place - k for k, place in enumerate(stand_in)), int(kept.sum())])
    return replace(encoded, sequences=sequences, gaps=gaps)


READER = ChatReader
