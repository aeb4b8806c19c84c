"""The tensors of one branch of a site whose unit has several, and of the branches of tokens mixed in one sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.unit.protocol import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from weft.kernels import RoutedRows


class BranchTensors:
    """The tensors of one branch, by their names within it; to its up-projection that of another may be added."""

    def __init__(self, weights: Weights, branch: str, up: BranchTensors | None = None) -> None:
        self.weights = weights
        self.branch = branch
        self.up = up

    @property
    def routed(self) -> RoutedRows | None:
        """The rows sorted by task."""
        return self.weights.routed

    def __getitem__(self, name: str) -> Tensor:
        own = self.weights[f"{self.branch}.{name}"]
        return own + self.up[name] if self.up is not None and name.startswith("up.") else own

    def slots(self, name: str) -> Tensor | None:
        """Slot of every task; None if task `t` has slot `t`, or if there is one for all."""
        return None

    def stored(self, name: str) -> tuple[Tensor, Tensor | None]:
        """The slots, and what `slots` gives."""
        return self[name], self.slots(name)

    def rows(self, name: str) -> Tensor:
        """The tensor of every row."""
        return self.weights.rows(f"{self.branch}.{name}")


class TokenTensors(BranchTensors):
    """The tensors of text and image branch, told apart token by token: `2 task + modality` is the routed id.

    Args:
        weights: The tensors of the site.
        modality: 1 for tokens of images and 0 for text, shape `(rows, length)`.
        one_down: Whether both branches have the same `down`, `norm` and `core`.
    """

    def __init__(self, weights: Weights, modality: Tensor, *, one_down: bool) -> None:
        super().__init__(weights, "text")
        self.one_down = one_down
        ids = weights.task_ids
        tasks = modality.new_zeros(modality.shape[0]) if ids is None else ids
        routed = (2 * tasks[:, None] + modality).masked_fill(tasks[:, None] < 0, -1)
        self.tasks = 1 if ids is None else weights.tasks
        self.ids = routed.flatten()

    @property
    def routed(self) -> RoutedRows:
        """The tokens sorted by routed id."""
        from weft.kernels import route_rows

        return route_rows(self.ids, 2 * self.tasks)

    def __getitem__(self, name: str) -> Tensor:
        import torch

        text = self.weights[f"text.{name}"]
        return text if self._is_one(name) else torch.cat([text, self.weights[f"vision.{name}"]])

    def slots(self, name: str) -> Tensor:
        """Slot of every routed id, shape `(2 tasks,)`."""
        import torch

        count = self.weights[f"text.{name}"].shape[0]
        table = (
            torch.arange(self.tasks, device=self.ids.device) if count > 1 else self.ids.new_zeros(self.tasks)
        )
        both = torch.stack([table, table if self._is_one(name) else table + count], dim=1)
        return both.flatten()

    def rows(self, name: str) -> Tensor:
        """The tensor of every token."""
        return self[name].index_select(0, self.slots(name).index_select(0, self.ids.clamp_min(0)))

    def _is_one(self, name: str) -> bool:
        return self.one_down and not name.startswith("up.")
