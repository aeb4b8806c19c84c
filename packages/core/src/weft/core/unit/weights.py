"""What a unit reads at a site: tensors by name, for the rows of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weft.kernels import RoutedRows


class Weights(Protocol):
    """What a unit reads at one site, for the current batch."""

    @property
    def task_ids(self) -> Tensor | None:
        """Task of every row, shape `(rows,)`, -1 for identity; None if the rows need not be told apart."""

    @property
    def routed(self) -> RoutedRows | None:
        """The rows sorted by task, as operations of `weft.kernels` take them; None like `task_ids`."""

    @property
    def tasks(self) -> int:
        """Number of tasks of the model."""

    @property
    def has_identity(self) -> bool:
        """Whether some rows may be of task -1."""

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""

    @property
    def module(self) -> nn.Module:
        """The site's module, whose own weights are only read."""

    def __getitem__(self, name: str) -> Tensor:
        """The slots of a tensor, shape `(slots, *shape)`: one for each task, or one if it is shared by all.

        Tasks that share in groups each get that of their group, as a copy.
        """

    def stored(self, name: str) -> tuple[Tensor, Tensor | None]:
        """The slots as stored, and the slot of every task, int64, shape `(tasks,)`, where tasks share in groups."""

    def rows(self, name: str) -> Tensor:
        """The tensor of every row, shape `(rows or 1, *shape)`; rows of task -1 get slot 0."""

    def tapped(self, name: str) -> Tensor | None:
        """What a module of `Unit.taps` read in this pass, or None if it was not called."""

    def signal(self, name: str) -> Tensor | None:
        """A tensor of the batch that `model.signal(...)` set, or None."""

    def plain_forward(self, inputs: Tensor, path: str = "") -> Tensor:
        """What the site's module, or one at a path within it, returns without its units."""

    @property
    def collects_losses(self) -> bool:
        """Whether somebody collects auxiliary losses now; if not, a unit need not compute its own."""

    def owe(self, loss: Tensor) -> None:
        """Add a scalar to the loss of the batch, if auxiliary losses are collected."""

    def keep_identity(self, adapted: Tensor, plain: Tensor) -> Tensor:
        """`adapted`, but `plain` on rows of task -1."""
