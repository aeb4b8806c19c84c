"""Progress of a run: rich bars on a terminal, plain lines elsewhere, nothing if nobody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from weft.train.output.terminal import harmless

Advance = Callable[[int], None]


class Progress:
    """Shows nothing; the base of those that do."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show one piece of work, perhaps within another.

        Args:
            title: What is done.
            total: Units of work in all.
            done: Units that an earlier process did; they say nothing about the speed of this one.

        Yields:
            A function that takes the units done so far.
        """
        yield lambda units: None

    def note(self, *words: str) -> None:
        """Show a few words each about the piece of work that is being done, such as its losses."""

    def say(self, line: str) -> None:
        """Show a line that stays, such as what is left out of the data."""


class PlainProgress(Progress):
    """A line when a piece of work ends, and one every so many seconds while it lasts."""

    def __init__(self, write: Callable[[str], None], every: float = 30.0) -> None:
        self.write, self.every = write, every
        self.words: tuple[str, ...] = ()

    def note(self, *words: str) -> None:
        """Put these words into the next line."""
        self.words = words

    def say(self, line: str) -> None:
        """Write the line."""
        self.write(harmless(line))

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Write lines about one piece of work."""
        started = said = time.perf_counter()
        outer, self.words, last = self.words, (), total

        def advance(units: int) -> None:
            nonlocal said, last
            now, last = time.perf_counter(), units
            if now - said >= self.every:
                said = now
                left = (now - started) / max(units - done, 1) * (total - units)
                self.write(", ".join([f"{title}: {units} of {total}, about {left:.0f} s left", *self.words]))

        yield advance
        spent = time.perf_counter() - started
        self.write(f"{title}: {last} in {spent:.1f} s, {(last - done) / max(spent, 1e-9):.4g} a second")
        self.words = outer


class RichProgress(Progress):
    """Bars of rich, and the words below them; a bar within another is under it while it lasts."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._words: dict[Any, tuple[str, ...]] = {}

    def note(self, *words: str) -> None:
        """Write these words below the bars, as many on a line as fit."""
        if self._words:
            self._words[next(reversed(self._words))] = words
            self._bars.refresh()

    def say(self, line: str) -> None:
        """Write the line above the bars."""
        from rich.console import Console

        console = self._bars.console if self._bars is not None else Console(stderr=True)
        console.print(harmless(line), markup=False, highlight=False, emoji=False)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Draw one bar."""
        if self._bars is not None:
            with self._row(title, total, done) as advance:
                yield advance
            return
        self._bars = _bars(lambda: [word for words in self._words.values() for word in words])
        try:
            with self._bars, self._row(title, total, done) as advance:
                yield advance
        finally:
            self._bars = None

    @contextmanager
    def _row(self, title: str, total: int, done: int) -> Iterator[Advance]:
        bars = self._bars
        task = bars.add_task(title, total=total, completed=done)
        self._words[task] = ()
        try:
            yield lambda units: bars.update(task, completed=units)
        finally:
            del self._words[task]
            bars.remove_task(task)


def _bars(words: Callable[[], Sequence[str]]) -> Any:
    from rich.console import Console, ConsoleOptions
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    class Words:
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
            for line in packed(words(), options.max_width):
                yield Text(line, no_wrap=True, overflow="ellipsis")

    class BarsAndWords(Bars):
        def get_renderables(self) -> Iterator[Any]:
            yield from super().get_renderables()
            yield Words()

    narrow = Column(no_wrap=True, overflow="ellipsis", ratio=2)
    return BarsAndWords(
        TextColumn("{task.description}", markup=False, table_column=narrow),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        transient=True,
        expand=True,
    )


def packed(words: Sequence[str], width: int) -> list[str]:
    """Words joined by commas into lines of a width, none of which is broken within a word: a longer one has its own.

    >>> packed(["loss 2.3", "12 samples/s", "vqa 1.2", "nlvr 3.4"], 22)
    ['loss 2.3, 12 samples/s', 'vqa 1.2, nlvr 3.4']
    """
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += f", {word}"
        else:
            lines.append(word)
    return lines
