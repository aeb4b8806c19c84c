"""Routing: which task each row of a batch belongs to.

It is state of the root's store and costs the graph nothing but one tensor of ids. Rows differ from the batch
where a model repeats it (beams, flattened tokens): then the ids are repeated, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from weft.core.adapted.absent_tasks import Presence
from weft.core.backbone.owners import Media, media_of
from weft.core.backbone.sites import Modality, Site
from weft.core.errors import RoutingError, unknown

IDENTITY = -1
_ROWS = {"input_ids": "text", "inputs_embeds": "text", "decoder_input_ids": "text", "pixel_values": "vision"}

TaskNames = Sequence[str | None]


@dataclass(eq=False)
class Routing:
    """The tasks of the rows of one batch.

    Args:
        ids: Task ids per modality, shape `(rows,)`; the key `""` serves every modality not named.
        has_identity: Whether some rows may be of task -1, which passes through all units.
        present: The tasks that occur, if the host knows them.
        used: Whether rows were trained under it and that is not noted yet.
        owners: Modality to the row of the batch that each row of its towers belongs to, int64.
    """

    ids: Mapping[str, Tensor]
    has_identity: bool = True
    present: frozenset[int] | None = None
    used: bool = False
    owners: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(
        self, site: Site, rows: int, device: torch.device, media: Sequence[Media] | None = None
    ) -> Tensor:
        """Ids for the rows of a site, given the images and videos of the batch where a family knows their owners.

        Returns:
            Shape `(rows,)`, int64.

        Raises:
            RoutingError: If the rows are not a multiple of the ids, the site's modality has none, or it does not
                follow from the batch whose the rows are.
        """
        ids = self.ids.get(site.modality, self.ids.get(""))
        if ids is None:
            raise RoutingError(
                f"`tasks` must give the rows of every modality, but {site.address} is of modality "
                f"{site.modality!r} and there are only {', '.join(sorted(self.ids))}. Add it to the mapping."
            )
        if ids.device != device:
            ids = ids.to(device)
        given = ids.shape[0]
        if given == 1:
            return ids.expand(rows)
        if site.modality in self.owners:
            return self._of_owners(ids, site, rows)
        if site.owned:
            if site.modality in self.ids and given == rows:
                return ids
            media_here = media_of(media or (), rows, site.address)
            if site.modality in self.ids:
                return _of_media(ids, media_here, site, rows)
            owner = media_here.owner(rows).to(device)
            return _repeated(ids, media_here.counts.shape[0], site).index_select(0, owner)
        return _repeated(ids, rows, site)

    def note(self, presence: Presence) -> None:
        """Note the tasks if rows were trained under them."""
        if self.used:
            presence.note(self, self.ids.values() if self.present is None else self.present)
        self.used = False

    def _of_owners(self, ids: Tensor, site: Site, rows: int) -> Tensor:
        owner = self.owners[site.modality].to(ids.device)
        if owner.shape[0] != rows:
            raise RoutingError(
                f"`owners` must name the row of the batch for each of the {rows} rows of {site.address}, but "
                f"has {owner.shape[0]}. Count images, tiles or packed tokens as the tower sees them."
            )
        return ids.index_select(0, owner)


def note_gradient(presence: Presence, routing: Routing, gradient: Tensor) -> None:
    """Note the tasks of a routing as trained; a hook of a tensor."""
    routing.used = True
    routing.note(presence)


def check_batch(routing: Routing, inputs: Mapping[str, Any], *, owned: bool, repeats: bool) -> None:
    """Check that a model reads as many rows as there are tasks.

    Where images are owned, they may differ in number from the rows; while a model generates it repeats them, as beams
    do.

    Raises:
        RoutingError: If the numbers differ.
    """
    for name, modality in _ROWS.items():
        value = inputs.get(name)
        ids = routing.ids.get(modality, routing.ids.get(""))
        if (
            not isinstance(value, Tensor)
            or ids is None
            or ids.shape[0] == 1
            or (owned and modality == "vision")
        ):
            continue
        rows, given = value.shape[0], ids.shape[0]
        if rows == given or (repeats and rows % given == 0) or modality in routing.owners:
            continue
        raise RoutingError(
            f"`tasks` must be one per row of `{name}` ({rows}), but there are {given}. Give one per row; where "
            "texts and images differ in number, give a mapping from modality to tasks."
        )


def _repeated(ids: Tensor, rows: int, site: Site) -> Tensor:
    """Ids for rows of which each of the batch has equally many, one after the other."""
    given = ids.shape[0]
    if given == rows:
        return ids
    if rows % given:
        raise RoutingError(
            f"`tasks` must divide the rows of {site.address} ({rows}), but there are {given}. Give one "
            "task per row of the batch; where texts and images differ in number, give a mapping from "
            "modality to tasks."
        )
    return ids[:, None].expand(given, rows // given).reshape(rows)


def _of_media(ids: Tensor, media: Media, site: Site, rows: int) -> Tensor:
    """Ids for the rows of a tower from ids for its media."""
    known = media.placeholders(rows).shape[0]
    if ids.shape[0] != known:
        raise RoutingError(
            f"`tasks` must give a task for each of the {known} images of {site.address}, but gives "
            f"{ids.shape[0]} for {site.modality!r}. Leave {site.modality!r} out: images follow their rows."
        )
    return ids.index_select(0, media.medium(rows).to(ids.device))


def route_names(
    tasks: str | TaskNames | Mapping[str, TaskNames],
    known: Sequence[str],
    device: torch.device,
    owners: Mapping[str, Sequence[int] | Tensor] | None = None,
) -> Routing:
    """Routing from one name for all rows, one per row, or a mapping from modality to one per row; None is the identity.

    Owners are, by modality, the row of the batch that each row of its towers belongs to.

    Raises:
        RoutingError: If a name is not a task of the model, a key no modality, or an owner no row.
    """
    if isinstance(tasks, str):
        tasks = [tasks]
    named = tasks if isinstance(tasks, Mapping) else {"": tasks}
    _check_modalities(tasks, "tasks")
    position = {name: index for index, name in enumerate(known)}
    ids: dict[str, Tensor] = {}
    present: set[int] = set()
    for modality, given in named.items():
        names = [given] if isinstance(given, str) else given
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
        ids[modality] = torch.tensor(numbers, dtype=torch.int64).to(device)
    return Routing(
        ids,
        has_identity=IDENTITY in present,
        present=frozenset(present - {IDENTITY}),
        owners=check_owners(owners, ids, device),
    )


def check_owners(
    owners: Mapping[str, Sequence[int] | Tensor] | None, ids: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """Owners as tensors.

    Raises:
        RoutingError: If an owner is no row of the batch, or a key no modality.
    """
    _check_modalities(owners, "owners")
    found: dict[str, Tensor] = {}
    for modality, rows in (owners or {}).items():
        value = torch.as_tensor(rows).to(device)
        batch = next((ids[key].shape[0] for key in (modality, "") if key in ids), None)
        fault = None
        if value.dim() != 1 or value.dtype not in (torch.int64, torch.int32):
            fault = f"is {value.dtype} of shape {tuple(value.shape)}"
        elif batch is None:
            fault = f"has {modality!r}, for which no tasks are routed"
        elif (
            value.device.type == "cpu" and value.numel() and not (value >= 0).logical_and(value < batch).all()
        ):
            fault = f"names rows from {int(value.min())} to {int(value.max())} of a batch of {batch}"
        if fault:
            raise RoutingError(
                f"`owners` must give, for each modality, the row of the batch of every image, tile or packed "
                f"token, but {fault}. Give integers from 0."
            )
        found[modality] = value.to(torch.int64)
    return found


def route_ids(
    task_ids: Tensor | Mapping[str, Tensor], owners: Mapping[str, Sequence[int] | Tensor] | None = None
) -> Routing:
    """Routing from ids, shape `(rows,)`, integers from -1, or a mapping from modality to such.

    Owners are those of `route_names`.

    Raises:
        RoutingError: If a tensor is not one-dimensional or not of integers, or a key no modality.
    """
    _check_modalities(task_ids, "task_ids")
    named = task_ids if isinstance(task_ids, Mapping) else {"": task_ids}
    for ids in named.values():
        if not isinstance(ids, Tensor) or ids.dim() != 1 or ids.dtype not in (torch.int64, torch.int32):
            shown = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else repr(ids)
            raise RoutingError(
                f"`task_ids` must be a one-dimensional tensor of integers, but is {shown}. Take the position "
                "of each row's task in `model.weft.tasks`."
            )
    found = {modality: ids.to(torch.int64) for modality, ids in named.items()}
    return Routing(found, owners=check_owners(owners, found, next(iter(found.values())).device))


def _check_modalities(given: object, argument: str) -> None:
    if not isinstance(given, Mapping):
        return
    for name in given:
        if name not in get_args(Modality):
            raise RoutingError(unknown(f"a key of `{argument}`", name, get_args(Modality)))
