"""Routing: which task each row of a batch belongs to.

It is state of the root's store and costs the graph nothing but one tensor of ids. Rows differ from the batch
where a model repeats it (beams, tokens laid flat): then the ids are repeated, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weft.core.errors import ConfigError, RoutingError, unknown
from weft.core.sites import Site

TASK_NAME = re.compile(r"[a-z0-9_]+")
IDENTITY = -1

TaskNames = Sequence[str | None]


def check_tasks(tasks: Sequence[str] | None) -> tuple[str, ...]:
    """The task names, `("default",)` for None.

    Raises:
        ConfigError: If a name is not `[a-z0-9_]+`, occurs twice or is `shared`, or if there is none.
    """
    names = ("default",) if tasks is None else tuple(tasks)
    if isinstance(tasks, str) or not names:
        raise ConfigError(
            f"`tasks` must be a list of names, but is {tasks!r}. Write for instance ['vqa', 'gqa']."
        )
    for name in names:
        if not isinstance(name, str) or not TASK_NAME.fullmatch(name) or name == "shared":
            raise ConfigError(
                f"`tasks` must be of lower-case letters, digits and underscores and not 'shared', but one is "
                f"{name!r}. Rename it; it becomes part of the checkpoint's keys."
            )
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"`tasks` must be unique, but {name!r} occurs twice. Leave one out.")
    return names


@dataclass(eq=False)
class Routing:
    """The tasks of the rows of one batch.

    Args:
        ids: Task ids per modality, shape `(rows,)`; the key `""` serves every modality not named.
        has_identity: Whether some rows may be of task -1, which passes through all units.
        present: The tasks that occur, if the host knows them.
        used: Whether rows were trained under it and that is not noted yet.
    """

    ids: Mapping[str, Tensor]
    has_identity: bool = True
    present: frozenset[int] | None = None
    used: bool = False

    def rows(self, site: Site, rows: int, device: torch.device) -> Tensor:
        """Ids for the rows of a site.

        Args:
            site: The site.
            rows: Rows of its input.
            device: Device of its input.

        Returns:
            Shape `(rows,)`, int64.

        Raises:
            RoutingError: If the rows are not a multiple of the ids, or the site's modality has none.
        """
        ids = self.ids.get(site.modality)
        if ids is None:
            ids = self.ids.get("")
        if ids is None:
            raise RoutingError(
                f"`tasks` must give the rows of every modality, but {site.address} is of modality "
                f"{site.modality!r} and there are only {', '.join(sorted(self.ids))}. Add it to the mapping."
            )
        if ids.device != device:
            ids = ids.to(device)
        given = ids.shape[0]
        if given == rows:
            return ids
        if given == 1:
            return ids.expand(rows)
        if site.packed:
            raise RoutingError(
                f"`lengths` must be given, because {site.address} holds the tokens of all rows behind one "
                "another "
                f"({rows} tokens), and {given} tasks do not say whose they are. Give the number of tokens of "
                "each "
                f"row, such as `lengths={{{site.modality!r}: [...]}}`."
            )
        if rows % given:
            raise RoutingError(
                f"`tasks` must divide the rows of {site.address} ({rows}), but there are {given}. Give one "
                "task per row of the batch; where texts and images differ in number, give a mapping from "
                "modality to tasks."
            )
        return ids[:, None].expand(given, rows // given).reshape(rows)


def route_names(
    tasks: str | TaskNames | Mapping[str, TaskNames],
    known: Sequence[str],
    device: torch.device,
    lengths: Mapping[str, Sequence[int]] | None = None,
) -> Routing:
    """Routing from names.

    Args:
        tasks: One name for all rows, one per row, or a mapping from modality to one per row. None is the
            identity.
        known: The tasks of the model, in order.
        device: Where the ids shall live.
        lengths: Modality to the number of tokens of each row, where they lie behind one another.

    Raises:
        RoutingError: If a name is not a task of the model.
    """
    if isinstance(tasks, str):
        tasks = [tasks]
    named = tasks if isinstance(tasks, Mapping) else {"": tasks}
    position = {name: index for index, name in enumerate(known)}
    ids: dict[str, Tensor] = {}
    present: set[int] = set()
    for modality, names in named.items():
        numbers = []
        for name in names:
            if name is not None and name not in position:
                raise RoutingError(unknown("`tasks`", name, known))
            numbers.append(IDENTITY if name is None else position[name])
        if not numbers:
            raise RoutingError(
                "`tasks` must name a task per row, but is empty. Give one name per row of the batch."
            )
        present.update(numbers)
        if lengths is not None and modality in lengths:
            counts = list(lengths[modality])
            if len(counts) != len(numbers):
                raise RoutingError(
                    f"`lengths` must have one length per row of {modality!r} ({len(numbers)}), but has "
                    f"{len(counts)}. Give the number of tokens of each row."
                )
            numbers = [number for number, count in zip(numbers, counts, strict=True) for _ in range(count)]
        ids[modality] = torch.tensor(numbers, dtype=torch.int64).to(device)
    return Routing(ids, has_identity=IDENTITY in present, present=frozenset(present - {IDENTITY}))


def route_ids(task_ids: Tensor | Mapping[str, Tensor]) -> Routing:
    """Routing from ids.

    Args:
        task_ids: Shape `(rows,)`, integers from -1, or a mapping from modality to such.

    Raises:
        RoutingError: If a tensor is not one-dimensional or not of integers.
    """
    named = task_ids if isinstance(task_ids, Mapping) else {"": task_ids}
    for ids in named.values():
        if not isinstance(ids, Tensor) or ids.dim() != 1 or ids.dtype not in (torch.int64, torch.int32):
            shown = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else repr(ids)
            raise RoutingError(
                f"`task_ids` must be a one-dimensional tensor of integers, but is {shown}. Take the position "
                "of each row's task in `model.weft.tasks`."
            )
    return Routing({modality: ids.to(torch.int64) for modality, ids in named.items()})
