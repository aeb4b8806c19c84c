"""The metrics that a task may name: a metric registers itself in its own file, and is open to third parties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.core.registry import Registry
from weft.eval.errors import ScoreInputError
from weft.eval.metrics.report import ScoreReport

Groups = Mapping[str, Mapping[Any, str]]
Scorer = Callable[[Any, Sequence[Any], Groups], ScoreReport]


@dataclass(frozen=True)
class Metric:
    """A metric that a task may name.

    Attributes:
        scorer: Predictions by record id (for retrieval: `weft.eval.metrics.matches.Matches`), the records, and axis to
            record id to group; to their scores.
        types: Types of the records it scores, and with them those derived from them; empty for any.
        headlines: Entries of its scores that tables can show, its own first; empty for whatever its report holds.
    """

    scorer: Scorer
    types: tuple[str, ...] = ()
    headlines: tuple[str, ...] = ()


METRICS: Registry[Metric] = Registry("`metric`", ScoreInputError, "weft.eval.metrics", group="weft.metrics")
"""Metrics by the names that a task may take; an entry point of the group `weft.metrics` names a `Metric`."""


def register_metric(name: str, *types: str, headlines: tuple[str, ...] = ()) -> Callable[[Scorer], Scorer]:
    """Make a function known as the metric that tasks call `name`; a decorator. See `Metric` for the rest.

    Raises:
        ScoreInputError: If another metric has the name.
    """

    def register(scorer: Scorer) -> Scorer:
        METRICS.register(name, Metric(scorer, types, headlines))
        return scorer

    return register


def metric_named(name: str) -> Metric:
    """The metric of a name.

    Raises:
        ScoreInputError: If there is none; the message names all.
    """
    if name not in METRICS:
        raise ScoreInputError(f"`metric` must be one of {', '.join(METRICS)}, but is {name!r}.")
    return METRICS[name]
