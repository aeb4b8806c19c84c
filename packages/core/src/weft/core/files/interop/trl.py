"""Other trainers' batches with the task of each row: for TRL's `SFTTrainer`, and transformers' own `Trainer`.

They give a collator the rows of a data set, and the model what it returns. `WithTasks` lets a column with the task's
name go around the collator, and hands it on as `task_ids`, which the `forward` of an adapted model takes; the trainer
must keep the column (`remove_unused_columns=False`). `RoutesTasks`, mixed into a trainer, routes by them where the
trainer has a forward of its own, as TRL's has. With `AdapterCheckpoints`, it saves adapters and resumes from them:

    class TaskTrainer(RoutesTasks, AdapterCheckpoints, SFTTrainer): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import nn

from weft.core.adapted.bank import store_of
from weft.core.adapted.model import media_of
from weft.core.adapted.routing import route_ids
from weft.core.errors import RoutingError, unknown

TASK_IDS = "task_ids"


class RoutesTasks:
    """Mixin of a trainer that routes the rows of every batch by its `task_ids`, whatever its loss calls.

    TRL computes its loss without the model's own `forward`, so that the ids would be lost on the way.
    """

    model: Any

    def compute_loss(self, model: Any, inputs: MutableMapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The trainer's own loss, under the routing of the batch; wrappers may hold the model."""
        ids = inputs.pop(TASK_IDS, None)
        compute: Callable[..., Any] = super().compute_loss  # type: ignore[misc]
        if ids is None:
            return compute(model, inputs, *args, **kwargs)
        store, routing = store_of(self.model), route_ids(ids)
        media = media_of(self.model, routing, inputs)
        try:
            with store.using(routing, store.enabled, media=media):
                return compute(model, inputs, *args, **kwargs)
        finally:
            routing.note(store.presence)


class WithTasks:
    """A collator that hands on the task of each row.

    Args:
        collator: Makes a batch of rows without that column.
        model: An adapted model; its tasks are known by name.
        column: Name of the column that says a row's task.

    Raises:
        AttachError: If the model has no units.

    Example:
        >>> from weft.core import attach
        >>> from weft.core.testing import tiny_backbone
        >>> model = attach(tiny_backbone("bart")[0], {"method": "lora", "sharing": "multiple"}, ["vqa", "gqa"])
        >>> collator = WithTasks(lambda rows: {"rows": len(rows)}, model)
        >>> collator([{"text": "a", "task": "gqa"}, {"text": "b", "task": "vqa"}])
        {'rows': 2, 'task_ids': tensor([1, 0])}
    """

    def __init__(
        self,
        collator: Callable[[list[dict[str, Any]]], MutableMapping[str, Any]],
        model: nn.Module,
        column: str = "task",
    ) -> None:
        self.collator = collator
        self.column = column
        self.tasks = store_of(model).tasks

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> MutableMapping[str, Any]:
        """The collator's batch with `task_ids`, int64, shape `(rows,)`.

        Raises:
            RoutingError: If a row names no task, or one that the model lacks.
        """
        ids = torch.tensor([self._id(row) for row in rows])
        batch = self.collator(
            [{key: value for key, value in row.items() if key != self.column} for row in rows]
        )
        batch[TASK_IDS] = ids
        return batch

    def _id(self, row: Mapping[str, Any]) -> int:
        if self.column not in row:
            raise RoutingError(
                f"`column` must be one of each row, but {self.column!r} is not among {', '.join(sorted(row))}. Name "
                "the column with the tasks, and set remove_unused_columns=False where the trainer takes it out."
            )
        task = row[self.column]
        if task not in self.tasks:
            raise RoutingError(unknown("the task of a row", task, self.tasks))
        return self.tasks.index(task)
