"""How long a run took, over all its legs."""

from __future__ import annotations

import json
import time
from pathlib import Path

from weft.train.output.run_files import as_written

SECONDS = "seconds.json"


class Clock:
    """Runs from now on; a resumed run begins with what its checkpoint says."""

    def __init__(self) -> None:
        self._started, self._before = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Wall time so far, that of earlier legs included."""
        return self._before + time.perf_counter() - self._started

    def save(self, folder: Path) -> None:
        """Write down the time so far."""
        (folder / SECONDS).write_text(json.dumps(self.seconds), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Add what was written down; checkpoints of earlier versions say nothing."""
        if (folder / SECONDS).is_file():
            with as_written(folder / SECONDS):
                self._before = float(json.loads((folder / SECONDS).read_text(encoding="utf-8")))
