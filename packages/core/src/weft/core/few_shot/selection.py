"""What was chosen for a head, on what, and how its logits are scaled: one value, which every fit resets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weft.core.few_shot.grid import Bound, Search

SelectedOn = Literal["validation", "paper"]


class TestSelectionWarning(UserWarning):
    """Hyper-parameters or epochs were chosen on the test set."""

    __test__ = False  # no test class, whatever its name begins with


@dataclass(frozen=True)
class Selection:
    """The state of a head beside its tensors.

    Attributes:
        parameters: Hyper-parameters in use.
        chosen_on: `validation`, `paper` (the test set), or None where nothing was chosen.
        at_bounds: Hyper-parameters that are the lowest or the highest of the values compared.
        temperature: What logits are divided by for probabilities; other hyper-parameters make it one again.
    """

    parameters: dict[str, float] = field(default_factory=dict)
    chosen_on: SelectedOn | None = None
    temperature: float = 1.0
    at_bounds: Mapping[str, Bound] = field(default_factory=dict)

    def after(self, search: Search, chosen_on: SelectedOn) -> Selection:
        """The state after a search, which leaves alone what it did not compare."""
        kept = {name: bound for name, bound in self.at_bounds.items() if name not in search.selected}
        parameters = {**self.parameters, **search.selected}
        return Selection(parameters, chosen_on, at_bounds={**kept, **search.at_bounds})


def warn_of_the_test_set(method: str, chosen_on: SelectedOn, *, stacklevel: int) -> None:
    """Warn if a head chooses on the test set; `stacklevel` counts the frames up to the caller that is warned."""
    if chosen_on == "paper":
        warnings.warn(
            f"`selected_on` is 'paper': {method} chooses epochs and hyper-parameters on the test set, as the papers' "
            "code does. Its score there is no estimate for new images.",
            TestSelectionWarning,
            stacklevel=stacklevel + 1,
        )
