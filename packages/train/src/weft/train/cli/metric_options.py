"""Options of the metrics that `weft evaluate` takes for a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from weft.train.errors import RunError

_CONSISTENCY = ("off", "known", "all")


def metric_options(
    task: str, *, consistency: str | None = None, choices: Path | None = None
) -> dict[str, Any]:
    """What is passed to the metric of a benchmark.

    Args:
        task: The benchmark.
        consistency: How GQA's entailed questions are scored.
        choices: GQA's official choices file.

    Raises:
        RunError: The benchmark is not GQA, there is no such value, or the file cannot be read.
    """
    given = {"consistency": consistency, "choices": choices}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if task != "gqa":
            raise RunError(
                f"`--{name}` must be left out unless `--task` is gqa, but the task is {task!r}. Leave it out."
            )
    if consistency is not None and consistency not in _CONSISTENCY:
        raise RunError(
            f"`--consistency` must be one of {', '.join(_CONSISTENCY)}, but is {consistency!r}. Take 'known' where the "
            "gold file holds some of the entailed questions."
        )
    if choices is not None:
        try:
            options["choices"] = json.loads(choices.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"`--choices` must be GQA's choices file, but {choices} cannot be read: {error}. Give such as "
                "testdev_choices.json."
            ) from None
    return options
