"""The sides of a comparison, each a process, that take turns: A B A B."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure.turns import MARK

ROOT = Path(__file__).parents[2]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass
class Side:
    """One side.

    Attributes:
        name: What results call it.
        command: Starts its process, which calls `Turns.begin`.
        cpu: Processor seconds of each measured step.
        wall: Seconds of each measured step.
        facts: What it says about itself.
        peak_mib: Most memory that its process has had.
    """

    name: str
    command: Sequence[str]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    peak_mib: float = 0.0

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self._process = subprocess.Popen(
            list(self.command),
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._heard()
        self.facts.pop("ready")

    def turn(self, steps: int, *, counted: bool = True) -> None:
        """Let it take some steps.

        Args:
            steps: Their number.
            counted: Whether they count; those that warm up do not.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"step {steps}\n")
        self._process.stdin.flush()
        found = self._heard()
        if counted:
            self.cpu += found["cpu"]
            self.wall += found["wall"]

    def end(self) -> None:
        """End the process."""
        self._process.communicate("end\n")

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                values: dict[str, Any] = json.loads(line[len(MARK) :])
                self.peak_mib = values.pop("peak_mib")
                return values
        self._process.communicate()
        raise RuntimeError(f"The side {self.name!r} ended before its turn; what it said stands above.")

    def row(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "side": self.name,
            "cpu_ms": _median(self.cpu),
            "wall_ms": _median(self.wall),
            "cpu_ms_range": [round(1e3 * end, 2) for end in (min(self.cpu), max(self.cpu))],
            "steps": len(self.cpu),
            "peak_mib": round(self.peak_mib, 1),
            **self.facts,
        }


def _median(seconds: Sequence[float]) -> float:
    return round(1e3 * statistics.median(seconds), 2)


def in_turns(sides: Sequence[Side], *, rounds: int, steps: int, warm: int = 2) -> list[dict[str, Any]]:
    """Let sides take turns, and give what each measured.

    Args:
        sides: The sides.
        rounds: Turns of each.
        steps: Steps of one turn.
        warm: Steps before the first turn that do not count.
    """
    started: list[Side] = []
    try:
        for side in sides:
            side.start()
            started.append(side)
        for side in sides:
            side.turn(warm, counted=False)
        for number in range(rounds):
            # Every second round the other way round, so that a machine that grows slower favours nobody.
            for side in sides if number % 2 == 0 else reversed(sides):
                side.turn(steps)
    finally:
        for side in started:
            side.end()
    return [side.row() for side in sides]


def ratio(rows: Sequence[Mapping[str, Any]], ours: str, theirs: str, entry: str) -> float:
    """One side's number over another's.

    Args:
        rows: From `in_turns`.
        ours: Name of the one.
        theirs: Name of the other.
        entry: Which number.
    """
    found = {row["side"]: row[entry] for row in rows}
    return round(found[ours] / found[theirs], 3)
