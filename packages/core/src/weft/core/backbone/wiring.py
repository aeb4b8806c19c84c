"""Wiring: which modules of a backbone lead to a site and away from it, and what of that a unit may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Reads = Literal["tokens", "embeddings"]
Need = Literal["front", "map", "output", "rows", "stream", "sum"]


@dataclass(frozen=True, slots=True)
class Residual:
    """Where the residual stream runs past a sub-layer; None for what a family does not name.

    Args:
        before: Module whose input is the stream that enters the sub-layer, before any norm.
        behind: Module that returns the stream with the sub-layer's output in it, through the norm if one follows.
        norm: Norm that reads the sum of the two, where one follows it.
    """

    before: str | None = None
    behind: str | None = None
    norm: str | None = None

    @property
    def holds(self) -> str | None:
        """Module that reads (the norm) or returns the stream with the sub-layer's output in it."""
        return self.behind if self.norm is None else self.norm


@dataclass(frozen=True, slots=True)
class Wiring:
    """The modules around a site, by their paths from the root; None for what there is not.

    Args:
        path: Module whose output is transformed.
        source: Module whose input is the sub-layer's input, for units in parallel.
        residual: Where the residual stream runs.
        query: Module whose input is the query of the same layer's cross-attention.
        whole: What `path` reads if it is a whole stack, in front of whose input a prompt goes: `tokens` with a
            mask of them, or `embeddings` with the mask of its attentions.
        positions: Module that adds learned positions to what a whole stack reads.
        reader: Module that reads what a whole stack returns, with the prompt in it; None where the prompt's rows are
            left out of that.
    """

    path: str
    source: str | None = None
    residual: Residual = field(default_factory=Residual)
    query: str | None = None
    whole: Reads | None = None
    positions: str | None = None
    reader: str | None = None
