"""How many rows each task gives to one epoch of a mixture: rates, caps and exact rounding."""

from collections.abc import Mapping
from itertools import cycle
from typing import Literal, get_args

from weft.data.errors import InvalidArgumentError, require_known

Strategy = Literal["proportional", "temperature", "round_robin", "weights"]
LastBatch = Literal["short", "drop", "fill"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
_LAST: tuple[str, ...] = get_args(LastBatch)


def task_weights(
    sizes: Mapping[str, int],
    strategy: str = "proportional",
    temperature: float = 1.0,
    weights: Mapping[str, float] | None = None,
    caps: Mapping[str, int] | int | None = None,
) -> dict[str, float]:
    """Return the share of each task, summing to 1.

    Formula: p_i ∝ min(n_i, cap_i)^(1/T), with T = 1 for "proportional" and equal shares for "round_robin".

    Args:
        sizes: Task to number of rows n_i.
        strategy: One of `STRATEGIES`.
        temperature: T, positive; used by "temperature".
        weights: Task to weight; used by "weights".
        caps: Task to cap_i, or one number for all tasks.

    Source: examples-proportional mixing with a limit and temperature, as in the T5 paper (Raffel et al.,
        JMLR 2020, section 3.5.2).

    >>> task_weights({"a": 300, "b": 100})
    {'a': 0.75, 'b': 0.25}
    """
    require_known("strategy", STRATEGIES, strategy)
    for task, size in sizes.items():
        if size < 1:
            raise InvalidArgumentError(
                f"`sizes` must be at least 1 for every task, but {task!r} has {size} rows."
            )
    if temperature <= 0:
        raise InvalidArgumentError(f"`temperature` must be positive, but is {temperature}.")
    if (weights is not None) != (strategy == "weights"):
        raise InvalidArgumentError(
            f"`weights` must be given for strategy 'weights' and only there, but strategy is "
            f"{strategy!r} and weights is {weights!r}."
        )
    limits = capped(sizes, caps)
    if strategy == "weights":
        raw = _explicit(sizes, weights or {})
    elif strategy == "round_robin":
        raw = dict.fromkeys(sizes, 1.0)
    else:
        exponent = 1.0 / temperature if strategy == "temperature" else 1.0
        raw = {task: limits[task] ** exponent for task in sizes}
    return _normalised(raw)


def capped(sizes: Mapping[str, int], caps: Mapping[str, int] | int | None) -> dict[str, int]:
    """Return the number of rows of each task that counts for its rate."""
    if caps is None:
        return dict(sizes)
    limits = dict.fromkeys(sizes, caps) if isinstance(caps, int) else dict(caps)
    for task, limit in limits.items():
        require_known("task in `caps`", sizes, task)
        if limit < 1:
            raise InvalidArgumentError(f"`caps` must be at least 1, but is {limit} for task {task!r}.")
    return {task: min(size, limits.get(task, size)) for task, size in sizes.items()}


def draws_per_epoch(
    sizes: Mapping[str, int],
    rates: Mapping[str, float],
    batch_sizes: Mapping[str, int],
    *,
    strategy: str,
    mixed: bool,
    caps: Mapping[str, int] | int | None = None,
    steps: int | None = None,
    last: str = "short",
) -> tuple[dict[str, int], int]:
    """Return the rows of each task in one epoch, and the number of batches.

    `rates` are shares of rows for "proportional" and "temperature". For "round_robin" and "weights" they are
    shares of batches where batches hold one task, and of rows where they are mixed. `caps` count for the default
    length, which is that of one pass over all (capped) rows; `last` matters only where an epoch is one exact pass.
    """
    require_known("last", _LAST, last)
    if steps is not None and steps < 1:
        raise InvalidArgumentError(f"`steps_per_epoch` must be at least 1, but is {steps}.")
    if strategy == "proportional" and caps is None and steps is None:
        return _one_pass(sizes, batch_sizes, mixed, last)
    limits = capped(sizes, caps)
    if mixed:
        batch = next(iter(batch_sizes.values()))
        count = steps or -(-sum(limits.values()) // batch)
        return largest_remainder(rates, count * batch), count
    count = steps or sum(-(-limits[task] // batch_sizes[task]) for task in sizes)
    if strategy == "round_robin":
        turns = -(-count // len(sizes))
        return {task: turns * batch_sizes[task] for task in sizes}, turns * len(sizes)
    by_rows = strategy in ("proportional", "temperature")
    of_batches = _normalised({task: rate / batch_sizes[task] for task, rate in rates.items()})
    batches = largest_remainder(of_batches if by_rows else rates, count)
    return {task: batches[task] * batch_sizes[task] for task in sizes}, count


def largest_remainder(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Split `total` by `shares` into whole numbers, at least 1 for every positive share.

    Raises:
        InvalidArgumentError: If `total` is smaller than the number of tasks with a share.

    >>> largest_remainder({"a": 0.5, "b": 0.3, "c": 0.2}, 7)
    {'a': 4, 'b': 2, 'c': 1}
    """
    active = [task for task, share in shares.items() if share > 0]
    if total < len(active):
        raise InvalidArgumentError(
            f"`steps_per_epoch` must leave at least one place for each of {len(active)} tasks, but leaves {total}. "
            "Raise it, or give a weight of 0 to tasks that should not be drawn."
        )
    whole = {task: max(int(share * total), 1 if share > 0 else 0) for task, share in shares.items()}
    by_remainder = sorted(active, key=lambda task: whole[task] - shares[task] * total)
    next_best = cycle(by_remainder)
    while sum(whole.values()) < total:
        whole[next(next_best)] += 1
    while sum(whole.values()) > total:
        most = max(active, key=lambda task: whole[task] - shares[task] * total if whole[task] > 1 else -1.0)
        whole[most] -= 1
    return whole


def _one_pass(
    sizes: Mapping[str, int], batch_sizes: Mapping[str, int], mixed: bool, last: str
) -> tuple[dict[str, int], int]:
    if mixed:
        batch, total = next(iter(batch_sizes.values())), sum(sizes.values())
        if last == "short":
            return dict(sizes), -(-total // batch)
        count = -(-total // batch) if last == "fill" else total // batch
        shares = {task: size / total for task, size in sizes.items()}
        return largest_remainder(shares, count * batch), count
    if last == "short":
        draws = dict(sizes)
    elif last == "fill":
        draws = {task: -(-sizes[task] // batch_sizes[task]) * batch_sizes[task] for task in sizes}
    else:
        draws = {task: sizes[task] // batch_sizes[task] * batch_sizes[task] for task in sizes}
        for task, count in draws.items():
            if count == 0:
                raise InvalidArgumentError(
                    f"`last` must not be 'drop' for task {task!r}: its {sizes[task]} rows do not fill one "
                    f"batch of {batch_sizes[task]}."
                )
    return draws, sum(-(-draws[task] // batch_sizes[task]) for task in sizes)


def _normalised(raw: Mapping[str, float]) -> dict[str, float]:
    total = sum(raw.values())
    return {task: value / total for task, value in raw.items()}


def _explicit(sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, float]:
    require_known("task in `weights`", sizes, *weights)
    raw = {task: float(weights.get(task, 0.0)) for task in sizes}
    if min(raw.values()) < 0 or sum(raw.values()) <= 0:
        raise InvalidArgumentError(
            f"`weights` must be non-negative with a positive sum, but are {dict(weights)}."
        )
    return raw
