"""The report of a measurement and its proposal: a paragraph, tables, plain data, and a plot of agreement."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weft.data.processes.atomic import whole_file
from weft.train.runs.share.agreement import Agreement, agreement
from weft.train.runs.share.measurement import Measurement
from weft.train.runs.share.proposal import (
    Choice,
    Measurable,
    Proposal,
    Z,
    by_layer,
    families,
    measurable,
    progress_of,
)

_NOISE = "#e8e6e1"
_MOST_MARKED = 400  # numbers that a panel holds before they would run into one another


def nothing_in_words(measured: Measurement) -> str:
    """Why nothing is proposed."""
    known = measurable(measured)
    silent = [task for task, clear in zip(measured.tasks, known.tasks, strict=True) if not clear]
    reason = f"no pair agrees or conflicts by more than {Z:g} standard errors on {measured.batches} batches."
    if len(measured.tasks) - len(silent) < 2:
        reason = (
            f"of {', '.join(silent)} the mean gradient of {measured.batches} batches is within noise, or a step along "
            "it does not lower the task's loss on other rows."
        )
    return (
        f"Nothing can be said about these tasks, and no policy is proposed: {reason} Take more --batches, or other "
        "--steps; until then `sharing: single` costs least."
    )


def paragraph(measured: Measurement, proposal: Proposal) -> str:
    """Why a policy is proposed, in one paragraph."""
    known, tasks = measurable(measured), measured.tasks
    pairs = sorted(
        (pair for pair in _pairs(len(tasks)) if not math.isnan(known.whole.cosine[pair])),
        key=lambda pair: -known.whole.cosine[pair],
    )
    words = [f"On {measured.batches} batches,"]
    if pairs:
        best, worst = pairs[0], pairs[-1]
        least = f" and {_of(tasks, worst)} least ({_number(known.whole, worst)})" if len(pairs) > 1 else ""
        words.append(f"{_of(tasks, best)} agree most over all weights ({_number(known.whole, best)}){least}.")
    separated = [choice for choice in proposal.choices if len(choice.partition) > 1]
    together = _conflicts_together(proposal, tasks)
    if not separated and together:
        words.append("All tasks share everything.")
    elif not separated:
        words.append(
            "No conflict is more than noise in any part, so all tasks share everything, which costs least."
        )
    for choice in separated:
        words.append(f"In {_place(choice)} {_groups(choice, tasks)}, because {_reason(choice, tasks)}.")
    if separated and len(separated) < len(proposal.choices):
        words.append("Everywhere else all tasks share.")
    if together:
        words.append(
            f"There share although they conflict: {together}. Separate weights would cost more than the limit, or than "
            "the conflict does: each group would have a part of the width and its own rows alone."
        )
    words.append(_farther(measured, proposal))
    silent = [task for task, clear in zip(tasks, known.tasks, strict=True) if not clear]
    if silent:
        words.append(
            f"Of {', '.join(silent)} nothing can be said: the mean gradient is noise, or a step along it does not "
            "lower the task's loss on other rows. Its pairs count for nothing."
        )
    return " ".join(words)


def tables(measured: Measurement, proposal: Proposal | None) -> str:
    """Agreement and affinity over all weights, then agreement wherever the proposal decides, as Markdown."""
    known, tasks = measurable(measured), measured.tasks
    lines = ["| pair | corrected cosine | affinity → | affinity ← |", "|---|---|---|---|"]
    for i, j in _pairs(len(tasks)):
        there, back = _affinity(known, i, j), _affinity(known, j, i)
        lines.append(f"| {_of(tasks, (i, j))} | {_number(known.whole, (i, j))} | {there} | {back} |")
    lines += [
        "",
        "| task | agreement with itself (ceiling) | affinity with itself | measurable |",
        "|---|---|---|---|",
    ]
    for i, task in enumerate(tasks):
        shown = "yes" if known.tasks[i] else "no"
        lines.append(f"| {task} | {known.whole.ceiling[i]:.2f} | {_affinity(known, i, i)} | {shown} |")
    if proposal is not None:
        pairs = list(_pairs(len(tasks)))
        lines += ["", f"| where | shared by | {' | '.join(_of(tasks, pair) for pair in pairs)} |"]
        lines.append("|---|---|" + "---|" * len(pairs))
        for choice in proposal.choices:
            numbers = " | ".join(_number(choice.found, pair) for pair in pairs)
            lines.append(f"| {_place(choice)} | {_groups(choice, tasks)} | {numbers} |")
    return "\n".join(lines)


def plain_data(measured: Measurement, proposal: Proposal | None) -> dict[str, Any]:
    """All numbers, for other programs."""
    known = measurable(measured)
    found: dict[str, Any] = {
        "tasks": list(measured.tasks),
        "batches": measured.batches,
        "measurable": dict(zip(measured.tasks, known.tasks, strict=True)),
        "affinity": _listed(known.affinity),
        "affinity_error": _listed(known.affinity_error),
        "all": _agreement(known.whole),
    }
    if proposal is not None:
        found["choices"] = [
            {
                "part": choice.cells[0].part,
                "tower": choice.cells[0].tower,
                "stack": choice.cells[0].stack,
                "layers": _layers(choice),
                "blocks": sorted({block for cell in choice.cells for block in cell.blocks}),
                "groups": [[measured.tasks[task] for task in group] for group in choice.partition],
                **_agreement(choice.found),
            }
            for choice in proposal.choices
        ]
    return found


def draw_agreement(measured: Measurement, path: Path) -> Path:
    """Draw corrected cosines: rows are pairs of tasks, columns layers, a panel for every part of a stack.

    What is less than `Z` standard errors from zero is pale; what cannot be told from noise is grey. The suffix of
    `path` decides the format.
    """
    from matplotlib.figure import Figure

    panels = [by_layer(family) for family in families(measured)]
    pairs = list(_pairs(len(measured.tasks)))
    names = [f"{measured.tasks[i]} · {measured.tasks[j]}" for i, j in pairs]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    widest = max(len(cells) for cells in panels)
    size = (columns * (1.6 + 0.62 * max(widest, 3)) + 1.2, rows * (0.9 + 0.36 * len(pairs)) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    shown: Any = None
    for place, (axes, cells) in enumerate(zip(grid.flat, panels, strict=False)):
        found = [agreement(products) for _, products in cells]
        cosine = np.array([[one.cosine[pair] for one in found] for pair in pairs])
        error = np.array([[one.error[pair] for one in found] for pair in pairs])
        sure = np.abs(cosine) > Z * error
        axes.set_facecolor(_NOISE)
        shown = axes.imshow(
            np.ma.masked_invalid(np.clip(cosine, -1, 1)),
            cmap="RdBu",
            vmin=-1,
            vmax=1,
            alpha=np.where(sure, 1.0, 0.35),
            aspect="auto",
        )
        first = cells[0][0][0]
        axes.set_title(" ".join(word for word in (first.tower, first.stack, first.part) if word), fontsize=10)
        axes.set_yticks(range(len(pairs)), names if place % columns == 0 else [""] * len(pairs), fontsize=8)
        layers = ["all" if own[0].layer is None else str(own[0].layer) for own, _ in cells]
        axes.set_xticks(range(len(cells)), layers, fontsize=8)
        axes.tick_params(length=0)
        if cosine.size <= _MOST_MARKED:
            _write_numbers(axes, cosine, sure)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("layer", fontsize=9)
    bar = figure.colorbar(shown, ax=grid, shrink=0.8)
    bar.set_label("corrected cosine (pale: not told from 0; grey: noise)", fontsize=8)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)
    return path


def _write_numbers(axes: Any, cosine: np.ndarray, sure: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(cosine):
        if not math.isnan(value):
            dark = abs(value) > 0.6 and sure[row, column]
            axes.text(
                column,
                row,
                f"{round(float(np.clip(value, -1, 1)), 1) + 0.0:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "#1b2733",
            )


def _conflicts_together(proposal: Proposal, tasks: Sequence[str]) -> str:
    """The pairs that share in spite of conflicts beyond noise, each where it conflicts most."""
    worst: dict[tuple[int, int], tuple[float, Choice]] = {}
    for choice in proposal.choices:
        for group in choice.partition:
            for pair in itertools.combinations(group, 2):
                bound = float(choice.found.cosine[pair] + Z * choice.found.error[pair])
                if bound < worst.get(pair, (0.0, choice))[0]:
                    worst[pair] = bound, choice
    return ", ".join(
        f"{_of(tasks, pair)} in {_place(choice)} ({_number(choice.found, pair)})"
        for pair, (_, choice) in sorted(worst.items(), key=lambda one: one[1][0])
    )


def _farther(measured: Measurement, proposal: Proposal) -> str:
    """How far tasks go forward under the policy, beside sharing all or nothing."""
    tasks, count = range(len(measured.tasks)), max(sum(measurable(measured).tasks), 1)
    shared = progress_of(measured, (tuple(tasks),)) / count
    apart = progress_of(measured, tuple((task,) for task in tasks)) / count
    return (
        f"To first order and at equal trained weights, a step brings a task {proposal.progress / count:.2f} times as "
        f"far under this policy as if it were alone, {shared:.2f} times if all is shared and {apart:.2f} times if "
        "nothing is."
    )


def _pairs(count: int) -> itertools.combinations[tuple[int, int]]:
    return itertools.combinations(range(count), 2)


def _of(tasks: Sequence[str], pair: Sequence[int]) -> str:
    return " and ".join(tasks[task] for task in pair)


def _number(found: Agreement, pair: tuple[int, int]) -> str:
    value, error = found.cosine[pair], found.error[pair]
    return "noise" if math.isnan(value) or math.isnan(error) else f"{value:.2f} ± {error:.2f}"


def _affinity(known: Measurable, i: int, j: int) -> str:
    value, error = known.affinity[i, j], known.affinity_error[i, j]
    return "not taken" if math.isnan(value) else f"{100 * value:.2f} % ± {100 * error:.2f}"


def _layers(choice: Choice) -> list[int]:
    first, last = choice.cells[0], choice.cells[-1]
    return [] if first.layer is None else [first.layer, last.last or last.layer or 0]


def _place(choice: Choice) -> str:
    cell, layers = choice.cells[0], _layers(choice)
    place = (
        f"`{cell.part}` of {' '.join(filter(None, (cell.tower, cell.stack, choice.block))) or 'all towers'}"
    )
    if not layers:
        return place
    first, last = layers
    return f"{place} layer {first}" if first == last else f"{place} layers {first}-{last}"


def _groups(choice: Choice, tasks: Sequence[str]) -> str:
    if len(choice.partition) == 1:
        return "all share"
    together = [" with ".join(tasks[task] for task in group) for group in choice.partition if len(group) > 1]
    alone = [tasks[group[0]] for group in choice.partition if len(group) == 1]
    if alone:
        together.append(f"{' and '.join(alone)} {'are' if len(alone) > 1 else 'is'} alone")
    return "; ".join(together)


def _reason(choice: Choice, tasks: Sequence[str]) -> str:
    """The pair that is separated and conflicts most."""
    group_of = {task: place for place, group in enumerate(choice.partition) for task in group}
    apart = [
        pair
        for pair in _pairs(len(tasks))
        if group_of[pair[0]] != group_of[pair[1]] and not math.isnan(choice.found.cosine[pair])
    ]
    worst = min(apart, key=lambda pair: choice.found.cosine[pair] + Z * choice.found.error[pair])
    return f"{_of(tasks, worst)} conflict ({_number(choice.found, worst)})"


def _agreement(found: Agreement) -> dict[str, Any]:
    return {
        "cosine": _listed(found.cosine),
        "cosine_error": _listed(found.error),
        "ceiling": _listed(found.ceiling),
    }


def _listed(values: Any) -> Any:
    if getattr(values, "ndim", 0):
        return [_listed(value) for value in values]
    return None if math.isnan(value := float(values)) else round(value, 6)
