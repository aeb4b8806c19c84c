"""One side of a comparison, in its own process: it waits for its turn, takes some steps, and says what they cost.

Nothing of weft is imported here: a peer's environment need not have it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

MARK = "@@ "


class Turns:
    """Talks to the process that lets the sides take turns, in lines of JSON behind a mark.

    A step is what lies between two calls of `step_done`, or between the start of a turn and the first of them.
    """

    def __init__(self) -> None:
        self._left, self._found = 0, list[tuple[float, float]]()
        # What libraries print must not stand between the lines.
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def begin(self, **facts: Any) -> None:
        """Say that all is built, and wait for the first turn.

        Args:
            **facts: What is worth keeping about this side.
        """
        self._say({"ready": True, **facts})
        self._wait()

    def step_done(self) -> None:
        """Note what a step took; at the end of a turn, report and wait for the next."""
        self._found.append((time.process_time() - self._cpu, time.perf_counter() - self._wall))
        self._left -= 1
        if self._left <= 0:
            self._say({"cpu": [cpu for cpu, _ in self._found], "wall": [wall for _, wall in self._found]})
            self._found.clear()
            self._wait()
        self._start()

    def _start(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def _say(self, values: dict[str, Any]) -> None:
        self._out.write(f"{MARK}{json.dumps({**values, 'peak_mib': peak_mib()})}\n")

    def _wait(self) -> None:
        words = sys.stdin.readline().split()
        if not words or words[0] == "end":
            self._out.flush()
            os._exit(0)  # a trainer in the middle of its work has nothing to tidy
        self._left = int(words[1])
        self._start()

    def serve(self, step: Callable[[], Any], **facts: Any) -> None:
        """Take a step whenever it is this side's turn, for ever.

        Args:
            step: The step.
            **facts: As in `begin`.
        """
        self.begin(**facts)
        while True:
            step()
            self.step_done()


def peak_mib() -> float:
    """Most memory that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Count the bytes that autograd keeps for the backward pass, each storage once, parameters left out.

    The list that is given holds their sum at the end.
    """
    import torch

    found, total = dict[int, int](), [0]

    def note(value: torch.Tensor) -> torch.Tensor:
        if not isinstance(value, torch.nn.Parameter):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        yield total
    total[0] = sum(found.values())
