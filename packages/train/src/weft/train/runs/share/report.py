"""The report of a measurement and its proposal: a paragraph, tables, and plain data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from weft.train.runs.share.agreement import Agreement
from weft.train.runs.share.measurement import Measurement
from weft.train.runs.share.proposal import Choice, Measurable, Proposal, Z, measurable, progress_of

NOTHING = (
    "Nothing can be said about these tasks, and no policy is proposed: {reason} Take more --batches, or other --steps; "
    "until then `sharing: single` costs least."
)


def nothing_in_words(measured: Measurement) -> str:
    """Why nothing is proposed."""
    known = measurable(measured)
    silent = [task for task, clear in zip(measured.tasks, known.tasks, strict=True) if not clear]
    if len(measured.tasks) - len(silent) < 2:
        return NOTHING.format(
            reason=f"of {', '.join(silent)} the mean gradient of {measured.batches} batches is within noise, "
            "or a step along it does not lower the task's loss on other rows."
        )
    return NOTHING.format(
        reason=f"no pair agrees or conflicts by more than {Z:g} standard errors on {measured.batches} batches."
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
        words.append(f"{_of(tasks, best)} agree most over all weights ({_number(known.whole, best)})")
        words.append(
            f"and {_of(tasks, worst)} least ({_number(known.whole, worst)})." if len(pairs) > 1 else "."
        )
    separated = [choice for choice in proposal.choices if len(choice.partition) > 1]
    together = _conflicts_together(proposal, tasks)
    if not separated:
        alike = (
            "No conflict is more than noise in any part, so all tasks share everything, which costs least."
        )
        words.append("All tasks share everything." if together else alike)
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
    return " ".join(words).replace(" .", ".")


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


def _conflicts_together(proposal: Proposal, tasks: Sequence[str]) -> str:
    """The pairs that share in spite of conflicts beyond noise, each where it conflicts most."""
    worst: dict[tuple[int, int], tuple[float, Choice]] = {}
    for choice in proposal.choices:
        for group in choice.partition:
            for pair in itertools.combinations(group, 2):
                bound = float(choice.found.cosine[pair] + Z * choice.found.error[pair])
                if bound < worst.get(pair, (0.0, choice))[0]:
                    worst[pair] = bound, choice
    found = [
        f"{_of(tasks, pair)} in {_place(choice)} ({_number(choice.found, pair)})"
        for pair, (_, choice) in sorted(worst.items(), key=lambda one: one[1][0])
    ]
    return ", ".join(found)


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
    words = [cell.tower, cell.stack, choice.block]
    where = " ".join(word for word in words if word) or "all towers"
    if not layers:
        return f"`{cell.part}` of {where}"
    named = f"layer {layers[0]}" if layers[0] == layers[1] else f"layers {layers[0]}-{layers[1]}"
    return f"`{cell.part}` of {where} {named}"


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
