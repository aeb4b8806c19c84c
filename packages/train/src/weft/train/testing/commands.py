"""Commands in a separate process, beside models whose processors are built without torchvision."""

from __future__ import annotations

from weft.core.testing.processed.stills import without_torchvision
from weft.train.cli import main


def run_command(words: list[str]) -> None:
    """Run `weft` with the words after it, as a process that a test starts, and may kill."""
    without_torchvision()
    main(words)
