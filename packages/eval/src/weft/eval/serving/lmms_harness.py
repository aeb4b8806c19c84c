"""An adapted model as a model of lmms-eval, so that its harness and its tasks score it.

Importing this needs lmms-eval (`pip install lmms-eval`). It brings torchvision and its own release of PyAV: give it an
environment of its own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from lmms_eval.api.model import lmms

from weft.eval.errors import ScoreInputError

Answer = Callable[[str, Sequence[str], Sequence[Sequence[bytes]]], list[str]]


class HarnessModel(lmms):
    """Answers the `generate_until` requests of lmms-eval by one task of an adapted model.

    Length, beams and prompt are the task's own; of a request's generation arguments only `until` is heeded. One
    process; run one harness per device for more.

    Args:
        answer: Function of a task, the texts, and for each text its encoded images, to the answers.
        task: The task that the model is routed to.
        batch_size: Requests per pass.

    Raises:
        ScoreInputError: `batch_size` is below 1.
    """

    is_simple = True

    def __init__(self, answer: Answer, task: str, batch_size: int | str = 1) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ScoreInputError(
                f"`batch_size` must be a whole number from 1, but is {batch_size!r}. Choose one, such as 16."
            )
        self.task = task
        self.batch_size = int(batch_size)
        self._answer = answer

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests whose arguments are text, generation arguments, document to images, document id, task, split.

        Args:
            requests: Instances of lmms-eval.

        Returns:
            One text per request, in their order, cut before the first of the request's `until` texts.

        Raises:
            ScoreInputError: A request shows no image, or something that is no image.
        """
        answers: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            chunk = [request.args for request in requests[start : start + self.batch_size]]
            said = self._answer(
                self.task, [args[0] for args in chunk], [self._images(args) for args in chunk]
            )
            for args, text in zip(chunk, said, strict=True):
                answer = _cut(text, args[1].get("until") or [])
                self.cache_hook.add_partial("generate_until", (args[0], args[1]), answer)
                answers.append(answer)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: an adapted model is asked for words, not for probabilities of given words."""
        raise NotImplementedError(
            "Tasks of type loglikelihood are not answered here. Choose the generating form of the task, or rank the "
            "answers with weft.eval.evaluate.rank."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: adapted models hold no conversation."""
        raise NotImplementedError(
            "Tasks of several rounds are not answered here. Choose one of a single round."
        )

    def _images(self, args: Sequence[Any]) -> list[bytes]:
        _, _, to_visual, document, task, split = args
        shown = to_visual(self.task_dict[task][split][document])
        if not shown:
            raise ScoreInputError(
                f"Each request must show an image, but document {document!r} of {task} shows none. Choose a task with "
                "images."
            )
        return [_encoded(image, task, document) for image in shown]


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
