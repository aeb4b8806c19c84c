"""Print the notes of a release: its section of the change log.

``python scripts/release_notes.py 0.2.0`` is what the release of a tag calls.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGES = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(version: str, changes: str) -> str:
    """Return what a change log says of a version.

    Args:
        version: Its number, without the v of the tag.
        changes: The whole text.

    Raises:
        ValueError: There is no section of that number, or nothing in it.
    """
    sections = re.split(r"^## \[(.+?)\].*\n", changes, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True)).get(version, "").strip()
    if not found:
        raise ValueError(f"`version` must have a section in CHANGELOG.md, but {version!r} has none.")
    return found


if __name__ == "__main__":
    sys.stdout.write(notes(sys.argv[1], CHANGES.read_text("utf-8")) + "\n")
