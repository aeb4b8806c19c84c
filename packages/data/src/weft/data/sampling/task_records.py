"""Records of several tasks under one index, for a loader whose batches are lists of (task, row)."""

from collections.abc import Mapping, Sequence
from typing import Any

from weft.data.errors import require_known
from weft.data.sampling.mixing import Key


class TaskRecords:
    """Several sequences addressed by (task, row); give it to a `DataLoader` with a `TaskMixture`.

    >>> both = TaskRecords({"a": ["x", "y"], "b": ["z"]})
    >>> both[("a", 1)], both.sizes
    (('a', 'y'), {'a': 2, 'b': 1})
    """

    def __init__(self, sources: Mapping[str, Sequence[Any]]) -> None:
        self.sources = dict(sources)

    @property
    def sizes(self) -> dict[str, int]:
        """Task to number of rows, as `TaskMixture` takes it."""
        return {task: len(records) for task, records in self.sources.items()}

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def __getitem__(self, key: Key) -> tuple[str, Any]:
        """Return (task, record)."""
        task, row = key
        require_known("task", self.sources, task)
        return task, self.sources[task][row]
