"""What groups of tasks must hold, once the tasks are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weft.core.errors import ConfigError, unknown
from weft.core.sharing.policy import Sharing
from weft.core.sharing.slots import Groups


def check_groups(sharing: Sharing, tasks: Sequence[str], *, some_tasks: bool = False) -> None:
    """Refuse groups that do not hold exactly the tasks, or with `some_tasks` all of them and others.

    Raises:
        ConfigError: If a task is in no group, or a group names none of the tasks.
    """
    for part, groups in _groups(sharing):
        named = [task for group in groups for task in group]
        missing = [task for task in tasks if task not in named]
        if missing:
            raise ConfigError(
                f"`sharing.{part}.task` must put every task into a group, but leaves out {', '.join(missing)}. Add "
                f"[{missing[0]}] for a slot of its own, or put it into the group it shares with."
            )
        if some_tasks:
            continue
        for name in named:
            if name not in tasks:
                raise ConfigError(unknown(f"`sharing.{part}.task`", name, tasks))


def _groups(sharing: Sharing) -> Iterator[tuple[str, Groups]]:
    yield from sharing.groups.items()
    for rule in sharing.layers:
        yield from rule.sharing.groups.items()
