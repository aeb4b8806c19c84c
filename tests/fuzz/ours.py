"""Which errors are weft's own, and how targets do several steps of which each may end with one."""

from __future__ import annotations

from collections.abc import Callable


def is_ours(error: BaseException) -> bool:
    """Whether an error is one that weft raises on purpose: the command line ends with it alone, without a trace."""
    from weft.train.errors import is_mistake

    return is_mistake(error)


def each(*steps: Callable[[], object]) -> None:
    """Do all steps, whichever of them weft refuses."""
    for step in steps:
        try:
            step()
        except Exception as error:
            if not is_ours(error):
                raise
