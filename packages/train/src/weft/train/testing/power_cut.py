"""A run that ends in the middle, as by a power cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from weft.train.output.progress import Advance, Progress


class Killed(BaseException):
    """What a power cut looks like from inside."""


class DiesAt(Progress):
    """Ends the run at a step of training."""

    def __init__(self, step: int) -> None:
        self.step = step

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show nothing, and end the run at the step."""

        def advance(done: int) -> None:
            if title.startswith("train") and done == self.step:
                raise Killed

        yield advance
