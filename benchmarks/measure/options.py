"""What all benchmarks are told: how many rounds, and where the peers are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        rounds: Turns of each side.
        quick: Whether it is enough to show that a benchmark runs, on smaller cases where there are any.
        adapters: Python of the environment that has `adapters`; without it, its sides are left out.
        trl: Python of the environment that has TRL and peft.
    """

    rounds: int = 15
    quick: bool = False
    adapters: str | None = None
    trl: str = sys.executable


Measure = Callable[[Options], dict[str, Any]]
"""A benchmark: measures, and gives what its file of results shall hold."""
