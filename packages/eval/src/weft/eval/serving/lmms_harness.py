"""An adapted model as a model of lmms-eval, so that its harness and its tasks score it.

Importing this needs lmms-eval (`pip install lmms-eval`). It brings torchvision and its own release of PyAV: give it an
environment of its own.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lmms_eval.api.model import lmms

from weft.data import Conversation, MediaRef
from weft.data.errors import InvalidArgumentError
from weft.data.sources.opening import open_store
from weft.eval.errors import ScoreInputError

Talk = Callable[[Sequence[Conversation]], list[str]]
Answer = Callable[[str, Sequence[str], Sequence[Sequence[bytes]]], list[str]]


class _Asked(lmms):
    """What both kinds of models have in common: requests in chunks, stops, and what they refuse."""

    _settings: ClassVar[int]
    """Place of the generation arguments among those of a request."""

    def __init__(self, batch_size: int | str = 1) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ScoreInputError(
                f"`batch_size` must be a whole number from 1, but is {batch_size!r}. Choose one, such as 16."
            )
        self.batch_size = int(batch_size)

    @abstractmethod
    def _said(self, chunk: Sequence[Any]) -> list[str]:
        """Answers to the arguments of some requests."""

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests; see the class for what they hold.

        Args:
            requests: Instances of lmms-eval.

        Returns:
            One text per request, in their order, cut before the first of the request's `until` texts.

        Raises:
            ScoreInputError: If a request cannot be answered, with its document.
        """
        answers: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            chunk = [request.args for request in requests[start : start + self.batch_size]]
            for args, text in zip(chunk, self._said(chunk), strict=True):
                settings = args[self._settings]
                answer = _cut(text, settings.get("until") or [])
                self.cache_hook.add_partial("generate_until", (args[0], settings), answer)
                answers.append(answer)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: an adapted model is asked for words, not for probabilities of given words."""
        raise NotImplementedError(
            "Tasks of type loglikelihood are not answered here. Choose the generating form of the task, or rank the "
            "answers with weft.eval.evaluate.rank."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: what is said next depends on the answer before."""
        raise NotImplementedError(
            "Tasks of several rounds are not answered here. Choose one of a single round."
        )


class HarnessModel(_Asked):
    """Answers the `generate_until` requests of lmms-eval by one task of an adapted model.

    Requests hold text, generation arguments, document to images, document id, task and split. Length, beams and prompt
    are the task's own; of a request's generation arguments only `until` is used. One process; run one harness per
    device for more.

    Args:
        answer: Function of a task, the texts, and for each text its encoded images, to the answers.
        task: The task that the model is routed to.
        batch_size: Requests per pass.

    Raises:
        ScoreInputError: `batch_size` is below 1.
    """

    is_simple = True
    _settings = 1

    def __init__(self, answer: Answer, task: str, batch_size: int | str = 1) -> None:
        super().__init__(batch_size)
        self.task, self._answer = task, answer

    def _said(self, chunk: Sequence[Any]) -> list[str]:
        return self._answer(self.task, [args[0] for args in chunk], [self._images(args) for args in chunk])

    def _images(self, args: Sequence[Any]) -> list[bytes]:
        _, _, to_visual, document, task, split = args
        shown = to_visual(self.task_dict[task][split][document])
        if not shown:
            raise ScoreInputError(
                f"Each request must show an image, but document {document!r} of {task} shows none. Choose a task with "
                "images."
            )
        return [_encoded(image, task, document) for image in shown]


class ChatHarnessModel(_Asked):
    """Answers the requests that lmms-eval makes of a chat model: messages with images and videos, in their order.

    Requests hold text, document to messages, generation arguments, document id, task and split. The model's own
    template words the messages; length and beams are the task's own, and of a request's generation arguments only
    `until` is used.

    Args:
        talk: Function of conversations, whose answers are hidden, to the answers.
        batch_size: Requests per pass.

    Raises:
        ScoreInputError: `batch_size` is below 1.
    """

    is_simple = False
    _settings = 2

    def __init__(self, talk: Talk, batch_size: int | str = 1) -> None:
        super().__init__(batch_size)
        self._talk = talk

    def _said(self, chunk: Sequence[Any]) -> list[str]:
        return self._talk([self._conversation(args) for args in chunk])

    def _conversation(self, args: Sequence[Any]) -> Conversation:
        _, to_messages, _, document, task, split = args
        messages = to_messages(self.task_dict[task][split][document])
        said = [list(_parts(message["content"], task, document)) for message in messages]
        try:
            return Conversation(
                id=f"{task}/{document}",
                roles=tuple(message["role"] for message in messages),
                parts=tuple(tuple(part if isinstance(part, str) else None for part in own) for own in said),
                images=tuple(part for own in said for part in own if not isinstance(part, str)),
            )
        except InvalidArgumentError as error:
            raise ScoreInputError(f"Document {document!r} of {task} cannot be asked: {error}") from None


def _parts(content: Any, task: str, document: Any) -> Iterator[str | MediaRef]:
    """Texts, images and videos of a message, as the protocol of lmms-eval types them."""
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part["type"] == "text":
            yield part["text"]
        elif part["type"] == "image":
            yield MediaRef.from_bytes(_encoded(part["url"], task, document), f"{task}/{document}")
        elif part["type"] == "video" and isinstance(part["url"], str | Path):
            path, span = Path(part["url"]), (part.get("start_time"), part.get("end_time"))
            start, end = (None if second is None else float(second) for second in span)
            yield MediaRef(path.name, open_store(path.parent), "video", start, end)
        else:
            raise ScoreInputError(
                f"Each request must show images and files of videos, but document {document!r} of {task} shows "
                f"{part['type']} as a {type(part.get('url')).__name__}. Choose another task."
            )


def _encoded(image: Any, task: str, document: Any) -> bytes:
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise ScoreInputError(
            f"Each request must show images, but document {document!r} of {task} shows a {type(image).__name__}. "
            "Choose a task with images."
        )
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _cut(text: str, until: str | Sequence[str]) -> str:
    for stop in [until] if isinstance(until, str) else until:
        if stop:
            text = text.split(stop)[0]
    return text.strip()
