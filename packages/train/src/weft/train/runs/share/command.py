"""`weft share`: from a recipe to a measurement, a policy, and files that report both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from weft.core import Plan, plan
from weft.data.processes.atomic import write_text
from weft.train.backbones.loading import planned_model
from weft.train.errors import RecipeError, RunError
from weft.train.output.progress import Progress
from weft.train.output.result import write_json
from weft.train.processes import join_processes
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import train_session
from weft.train.runs.share.cells import cells_of, trained_beside
from weft.train.runs.share.measure import Measured, measure
from weft.train.runs.share.policy import sharing_of
from weft.train.runs.share.proposal import Proposal, can_be_said, proposals
from weft.train.runs.share.report import draw_agreement, nothing_in_words, paragraph, plain_data, tables


@dataclass(frozen=True)
class Limit:
    """What a policy may cost.

    Attributes:
        percent: Maximum share of trained parameters in all, in per cent; None sets no limit.
        slots: Maximum number of slots of all cells; None sets no limit.
    """

    percent: float | None = None
    slots: int | None = None


@dataclass(frozen=True)
class Shared:
    """What `weft share` found.

    Attributes:
        measured: What was measured.
        policies: The policies, best first, as `method` of a recipe each; empty where nothing can be said.
        text: What a terminal shows.
    """

    measured: Measured
    policies: tuple[Any, ...]
    text: str


def read_limit(trained: str | None, slots: int | None) -> Limit:
    """The limit of `--trained` and `--slots`.

    Raises:
        RecipeError: If both are given, or the share is no percentage.
    """
    if trained is not None and slots is not None:
        raise RecipeError(
            "`--trained` must be left out with `--slots`, but both are given. Take one of them."
        )
    if trained is None:
        return Limit(slots=slots)
    try:
        percent = float(trained.strip().removesuffix("%"))
        if not 0 < percent < 100:
            raise ValueError
    except ValueError:
        raise RecipeError(
            f"`--trained` must be a share of all parameters between 0% and 100%, but is {trained!r}. Write for "
            "instance 5%."
        ) from None
    return Limit(percent=percent)


def share(
    source: str,
    overrides: Sequence[str],
    *,
    steps: int | None = None,
    batches: int | None = None,
    limit: Limit | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Shared:
    """Measure what the tasks of a recipe can share, and propose a policy.

    Beside the measurement, the folder `NAME.share` gets `policy.yaml` (to be merged over the recipe), `share.md`,
    `share.json` and `share.png`.

    `source` and `overrides` name the recipe; `limit` is what the policy may cost, and the rest is as for `measure`.

    Raises:
        RunError: As `measure` does; or if even sharing everything costs more than the limit.
    """
    recipe = load_recipe(source, list(overrides))
    limit = limit or Limit()
    _check_limit(recipe, limit)
    measured = measure(
        recipe, train_session, steps=steps, batches=batches, overwrite=overwrite, progress=progress
    )
    found = _proposed(measured, limit) if can_be_said(measured.measurement) else []
    methods = tuple(method_of(measured, proposal) for proposal in found)
    text = _told(measured, found, methods)
    if join_processes().first:
        _write(measured, found, methods, text)
    return Shared(measured, methods, text)


def method_of(measured: Measured, proposal: Proposal) -> Any:
    """The method of a recipe with a proposal as its sharing."""
    own = sharing_of(proposal, measured.planned, measured.measurement.tasks)
    given = measured.recipe.method
    words = [
        {**one, "sharing": sharing} if sharing else dict(one)
        for one, sharing in zip(given if isinstance(given, list) else [given], own, strict=True)
    ]
    return words if isinstance(given, list) else words[0]


def _proposed(measured: Measured, limit: Limit) -> list[Proposal]:
    if limit.slots is not None:
        return proposals(measured.measurement, limit.slots, "slots")
    budget = None if limit.percent is None else _budget(measured.planned, limit.percent)
    return proposals(measured.measurement, budget)


def _budget(planned: Plan, percent: float) -> int:
    """Trained parameters of all cells that a share of all parameters leaves."""
    share, beside = percent / 100, trained_beside(planned, cells_of(planned))
    # What the slots may be for (beside + slots) / (backbone + slots) to be the share; fixed tensors only lower it.
    return int((share * planned.backbone_parameters - beside) / (1 - share))


def _check_limit(recipe: Any, limit: Limit) -> None:
    planned = plan(planned_model(recipe.backbone), recipe.method, list(recipe.tasks))
    cells = cells_of(planned)
    least = sum(cell.parameters for cell in cells)
    if limit.slots is not None and limit.slots < len(cells):
        raise RunError(
            f"`--slots` must be at least {len(cells)}, one for each part of every layer, but is {limit.slots}."
        )
    if limit.percent is not None and _budget(planned, limit.percent) < least:
        beside = trained_beside(planned, cells)
        trained, total = beside + least, planned.backbone_parameters + least
        raise RunError(
            f"`--trained` must leave room for weights that all tasks share, which are {100 * trained / total:.2f} % of "
            f"all parameters with this method, but is {limit.percent:g}%. Raise it, or choose a smaller method."
        )


def _told(measured: Measured, found: Sequence[Proposal], methods: Sequence[Any]) -> str:
    measurement = measured.measurement
    lines = [tables(measurement, found[0] if found else None), "", _cost(measured), ""]
    if not found:
        return "\n".join([*lines, nothing_in_words(measurement)]) + "\n"
    lines += [paragraph(measurement, found[0]), "", _yaml({"method": methods[0]})]
    return "\n".join(lines)


def _cost(measured: Measured) -> str:
    cost = measured.cost
    if not cost.get("train_seconds") or not cost.get("train_steps"):
        return ""
    each = cost["train_seconds"] / cost["train_steps"]
    share = 100 * (cost["train_seconds"] + cost["measure_seconds"]) / (each * cost["whole_steps"])
    return (
        f"Training {cost['train_steps']:.0f} steps took {cost['train_seconds']:.1f} s and measuring "
        f"{cost['measure_seconds']:.1f} s, together {share:.1f} % of the recipe's {cost['whole_steps']:.0f} steps. "
        f"Peak memory: {cost['train_memory_mb']:.0f} MiB of training, {cost['measure_memory_mb']:.0f} MiB at the end."
    )


def _write(measured: Measured, found: Sequence[Proposal], methods: Sequence[Any], text: str) -> None:
    folder, measurement = measured.folder, measured.measurement
    write_text(folder / "share.md", f"# What the tasks of {measured.recipe.name} can share\n\n{text}")
    data = plain_data(measurement, found[0] if found else None)
    write_json(folder / "share.json", {**data, "cost": dict(measured.cost), "policies": list(methods)})
    draw_agreement(measurement, folder / "share.png")
    policy = folder / "policy.yaml"
    if methods:
        write_text(policy, _yaml({"method": methods[0]}))
    else:
        policy.unlink(missing_ok=True)


def _yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
