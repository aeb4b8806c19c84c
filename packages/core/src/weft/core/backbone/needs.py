"""Needs: what a unit must find at its sites, as words; `plan` holds every site that it chooses to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from weft.core.backbone.sites import Site
from weft.core.backbone.wiring import Need
from weft.core.errors import ConfigError

_NEEDS: dict[Need, tuple[Callable[[Site], bool], str, str]] = {
    "front": (
        lambda site: site.block == "embedding",
        "a place in front of a stack",
        "Choose `blocks: [embedding]`.",
    ),
    "map": (
        lambda site: site.rows is None,
        "a linear map that is not fused with others",
        "Choose other `linears` or `towers`, or a method of weft's own.",
    ),
    "output": (
        lambda site: site.wiring.whole is None,
        "the output of a sub-layer",
        "Choose `blocks` within the layers; `prompt` goes in front of a stack.",
    ),
    "rows": (
        lambda site: not site.packed,
        "a row of its own for every input",
        "Leave out the tower, which packs the tokens of all rows into one sequence.",
    ),
    "stream": (
        lambda site: site.wiring.residual.before is not None,
        "the residual stream before the sub-layer",
        "Choose other `towers`, or add `before` to this block of the family.",
    ),
    "sum": (
        lambda site: site.wiring.residual.holds is not None,
        "a module that holds the residual stream with the sub-layer's output in it",
        "Choose another `placement` or other `blocks`, or add `behind` or `norm` to this block of the family.",
    ),
}


def check_needs(method: str, needs: Sequence[Need], chosen: Iterable[Site], family: str) -> None:
    """Hold the sites that a unit chose to what it needs.

    A unit that does not go in front of a stack needs an output as well.

    Raises:
        ConfigError: If a site lacks something.
    """
    every = needs if "front" in needs else ("output", *needs)
    for site in chosen:
        for need in every:
            holds, what, step = _NEEDS[need]
            if not holds(site):
                raise ConfigError(
                    f"`method` {method!r} must have {what} wherever it acts, but family {family!r} names none at "
                    f"{site.address}. {step}"
                )
