"""What commands show on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.train.output.progress import PlainProgress, Progress, RichProgress

if TYPE_CHECKING:
    from weft.train.output.result import Result


def is_first() -> bool:
    """Whether this is the process, among those that a launcher started, that speaks."""
    return os.environ.get("RANK", "0") == "0"


def progress() -> Progress:
    """Bars on a terminal, lines elsewhere, nothing on processes other than the first."""
    if not is_first():
        return Progress()
    if sys.stderr.isatty():
        return RichProgress()
    return PlainProgress(lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201


def show_result(result: Result, published: Sequence[str] = ()) -> None:
    """Print the scores of a run, on the first process.

    Args:
        result: What the run gave.
        published: What others printed for its method, one line each.
    """
    if not is_first():
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "metric", "score", "records", title=str(result.folder))
    for name, report in result.reports.items():
        table.add_row(
            name,
            f"{report['metric']}: {report['headline']}",
            f"{result.scores[name]:.2f}",
            f"{report['n']:,}",
        )
    if len(result.reports) > 1:
        table.add_row("average", "", f"{result.scores['average']:.2f}", "", style="bold")
    console = Console(markup=False, emoji=False)
    console.print(table)
    share = 100 * result.trainable / result.total
    console.print(
        f"{result.trainable:,} of {result.total:,} parameters trained ({share:.2f} %), {result.seconds:.0f} s. "
        f"Adapter: {result.folder / 'adapter'}"
    )
    for line in published:
        console.print(f"Published: {line}")
