"""Progress of a run: rich bars on a terminal, plain lines elsewhere, nothing if nobody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


class Progress:
    """Shows nothing; the base of those that do."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Show one piece of work.

        Args:
            title: What is done.
            total: Units of work in all.

        Yields:
            A function that takes the units done so far.
        """
        yield lambda done: None

    def note(self, text: str) -> None:
        """Show a few words beside the piece of work that is being done, such as its losses."""


class PlainProgress(Progress):
    """A line when a piece of work ends, and one every so many seconds while it lasts.

    Args:
        write: Takes one line.
        every: Seconds between lines.
    """

    def __init__(self, write: Callable[[str], None], every: float = 30.0) -> None:
        self.write, self.every = write, every
        self.words = ""

    def note(self, text: str) -> None:
        """Put these words into the next line."""
        self.words = text

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Write lines about one piece of work."""
        started = said = time.perf_counter()
        self.words = ""

        def advance(done: int) -> None:
            nonlocal said
            now = time.perf_counter()
            if now - said >= self.every:
                said = now
                left = (now - started) / max(done, 1) * (total - done)
                self.write(
                    ", ".join(
                        filter(None, [f"{title}: {done} of {total}, about {left:.0f} s left", self.words])
                    )
                )

        yield advance
        spent = time.perf_counter() - started
        self.write(f"{title}: {total} in {spent:.1f} s, {total / max(spent, 1e-9):.4g} a second")


class RichProgress(Progress):
    """Bars of rich."""

    def __init__(self) -> None:
        self._show: Callable[[str], None] | None = None

    def note(self, text: str) -> None:
        """Write these words behind the bar."""
        if self._show is not None:
            self._show(text)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Draw one bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, TextColumn("{task.fields[note]}"), transient=True) as bars:
            task = bars.add_task(title, total=total, note="")
            self._show = lambda text: bars.update(task, note=text)
            yield lambda done: bars.update(task, completed=done)
            self._show = None
