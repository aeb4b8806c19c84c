"""The public function `adapter_bottleneck`: checks, defaults, one call of the op."""

from __future__ import annotations

import torch
from torch import Tensor

import weft.kernels.bottleneck.op  # noqa: F401  (registers the op)
from weft.kernels.backends import check_backend
from weft.kernels.bottleneck.activations import ACTIVATIONS
from weft.kernels.checks import (
    check_choice,
    check_floating,
    check_integer,
    check_probability,
    check_rank,
    check_size,
    check_tensors,
)
from weft.kernels.errors import KernelShapeError, KernelTypeError, KernelValueError


def adapter_bottleneck(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    *,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    task_ids: Tensor | None = None,
    down_slots: Tensor | None = None,
    up_slots: Tensor | None = None,
    offsets: Tensor | None = None,
    residual: Tensor | None = None,
    scale: float | Tensor = 1.0,
    activation: str = "gelu_tanh",
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    norm_eps: float = 1e-5,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Bottleneck adapters of many tasks in one call.

    For a row of task t, with D and U the down and up slot of t and s its scale::

        y = residual + dropout(s · (act(norm(x) · down[D] + down_bias[D]) · up[U] + up_bias[U]))

    Rows of task -1 pass through: their output is `residual`, or zero without one. The scale multiplies the up
    bias too. With activation ``identity``, no biases and ``residual = x · W`` this is LoRA for many tasks.

    The weights and `norm_weight` are used in the dtype of `x` (under autocast, of autocast); `residual` keeps
    its own.

    Args:
        x: inputs, shape (rows, ..., d_in); a row, with everything in its middle dimensions, has one task.
        down: down-projections, shape (down slots, d_in, r).
        up: up-projections, shape (up slots, r, d_out).
        down_bias: shape (down slots, r).
        up_bias: shape (up slots, d_out).
        task_ids: task of every row, int32 or int64, shape (rows,), -1 for identity. None: every row is task
            0.
        down_slots: down slot of every task, int32 or int64, shape (tasks,). None: task t uses slot t, or slot
            0 if there is only one.
        up_slots: the same for the up part.
        offsets: end of every task's rows for rows sorted by task, shape (tasks,); instead of `task_ids`.
        residual: added to the result, shape (rows, ..., d_out). Pass `x` itself for the usual adapter.
        scale: a number, or a tensor of shape (), (tasks,) or (tasks, d_out), which may be trained.
        activation: ``relu``, ``gelu`` (exact), ``gelu_tanh``, ``silu`` or ``identity``.
        norm_weight: weight of a LayerNorm over d_in applied first, shape (d_in,). None: no normalisation.
        norm_bias: bias of that LayerNorm, shape (d_in,).
        norm_eps: its epsilon.
        dropout: probability of dropping an entry of the scaled output, in [0, 1).
        seed: int or one-element int64 tensor that fixes the dropout mask. None: drawn from torch's generator.
        backend: ``auto`` (Triton on CUDA where possible), ``triton`` or ``torch``.

    Returns:
        Tensor of shape (rows, ..., d_out) in the dtype of `x`, promoted with that of `residual`.

    Raises:
        KernelShapeError: ranks or sizes disagree.
        KernelTypeError: a dtype is wrong, or an argument is not a tensor.
        KernelDeviceError: tensors live on different devices.
        KernelValueError: ids, slots, offsets, `dropout`, `activation` or `backend` are out of range; both
            `task_ids` and `offsets` are given.
        KernelBackendError: `backend` cannot run here.
        DoubleBackwardError: a second derivative is asked for.

    Source: Houlsby et al. 2019, eq. of section 2.1 (residual bottleneck); Sung et al. 2022 (VL-Adapter),
    section 3.2 (sharing across tasks). Slots per part generalise their half-shared variant.

    Example:
        >>> x = torch.randn(4, 7, 32)
        >>> down, up = torch.randn(1, 32, 8), torch.zeros(3, 8, 32)
        >>> y = adapter_bottleneck(x, down, up, task_ids=torch.tensor([2, 0, -1, 1]), residual=x)
        >>> torch.equal(y, x)
        True
    """
    tasks = _check(x, down, up, down_bias, up_bias, task_ids, down_slots, up_slots, offsets, residual,
    norm_weight,
                   norm_bias)  # fmt: skip
    check_choice("activation", activation, ACTIVATIONS)
    check_probability("dropout", dropout)
    check_backend(backend)
    scale_table, factor, tasks = _scale(scale, x, up.shape[2], tasks)
    if task_ids is None and offsets is None:
        down, down_bias = _first_slot(down, down_bias, down_slots)
        up, up_bias = _first_slot(up, up_bias, up_slots)
        down_slots = up_slots = None
        scale_table, tasks = None if scale_table is None else scale_table[:1], 1
    rows, width = x.shape[0], x.shape[-1]
    length = x.shape[1:-1].numel()
    add_input = residual is x
    y, _, _ = torch.ops.weft.adapter_bottleneck(
        x.reshape(rows, length, width),
        _as(down, x),
        _as(up, x),
        _as(down_bias, x),
        _as(up_bias, x),
        None if add_input or residual is None else residual.reshape(rows, length, up.shape[2]),
        scale_table,
        _as(norm_weight, x),
        _as(norm_bias, x),
        task_ids,
        offsets,
        down_slots,
        up_slots,
        _seed(seed, x) if dropout else None,
        factor,
        norm_eps,
        dropout,
        activation,
        add_input,
        tasks,
        torch.is_grad_enabled(),
        backend,
    )
    return y.reshape(*x.shape[:-1], up.shape[2])


def _as(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype == like.dtype else tensor.to(like.dtype)


def _first_slot(weight: Tensor, bias: Tensor | None, slots: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if slots is None:
        return weight, bias
    first = slots[:1]
    return weight.index_select(0, first), None if bias is None else bias.index_select(0, first)


def _seed(seed: int | Tensor | None, x: Tensor) -> Tensor:
    if seed is None:
        return torch.randint(0, 1 << 62, (1,), device=x.device)
    if isinstance(seed, Tensor):
        if seed.numel() != 1 or seed.dtype != torch.int64:
            raise KernelTypeError(
                f"`seed` must be an int or one int64 element, but is {seed.dtype} of shape "
                f"{tuple(seed.shape)}. "
                "Use torch.tensor([seed])."
            )
        return seed.reshape(1)
    return torch.full((1,), seed, dtype=torch.int64, device=x.device)


def _scale(scale: float | Tensor, x: Tensor, d_out: int, tasks: int) -> tuple[Tensor | None, float, int]:
    """The scale as a (tasks or 1, 1 or d_out) table or a factor, and the number of tasks."""
    if not isinstance(scale, Tensor):
        return None, float(scale), tasks
    check_tensors(x, {"scale": scale})
    check_floating({"scale": scale})
    if scale.dim() > 2 or (scale.dim() == 2 and scale.shape[1] not in (1, d_out)):
        raise KernelShapeError(
            f"`scale` must be a number or have shape (), (tasks,) or (tasks, {d_out}), but has shape "
            f"{tuple(scale.shape)}. Reshape it."
        )
    table = scale.reshape(-1, 1) if scale.dim() < 2 else scale
    if tasks > 1 and table.shape[0] not in (1, tasks):
        raise KernelShapeError(
            f"`scale` must have one entry for each of the {tasks} tasks or a single one, but has "
            f"{table.shape[0]}. "
            "Index it by task."
        )
    return _as(table, x), 1.0, max(tasks, table.shape[0])


def _check(
    x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor | None, up_bias: Tensor | None,
    task_ids: Tensor | None,
    down_slots: Tensor | None, up_slots: Tensor | None, offsets: Tensor | None, residual: Tensor | None,
    norm_weight: Tensor | None, norm_bias: Tensor | None,
) -> int:  # fmt: skip
    """Static checks of one call; returns the number of tasks known from shapes (at least 1)."""
    floats = {"x": x, "down": down, "up": up, "down_bias": down_bias, "up_bias": up_bias,
    "residual": residual,
              "norm_weight": norm_weight, "norm_bias": norm_bias}  # fmt: skip
    integers = {"task_ids": task_ids, "offsets": offsets, "down_slots": down_slots, "up_slots": up_slots}
    if not isinstance(x, Tensor):
        raise KernelTypeError(
            f"`x` must be a tensor, but is a {type(x).__name__}. Wrap it with torch.as_tensor."
        )
    check_tensors(x, floats | integers)
    check_floating(floats)
    check_integer(integers)
    if x.dim() < 2:
        raise KernelShapeError(
            f"`x` must have shape (rows, ..., d_in), but has shape {tuple(x.shape)}. Add a leading dimension."
        )
    _check_weights(x, down, up, down_bias, up_bias, norm_weight, norm_bias)
    expected = (*x.shape[:-1], up.shape[2])
    if residual is not None and residual.shape != expected:
        raise KernelShapeError(
            f"`residual` must have the shape of the output {tuple(expected)}, but has "
            f"{tuple(residual.shape)}. "
            "Check d_out of `up`."
        )
    return _check_routing(x, down, up, task_ids, down_slots, up_slots, offsets)


def _check_weights(
    x: Tensor, down: Tensor, up: Tensor, down_bias: Tensor | None, up_bias: Tensor | None,
    norm_weight: Tensor | None, norm_bias: Tensor | None,
) -> None:  # fmt: skip
    check_rank("down", down, 3, "(down slots, d_in, r)")
    check_rank("up", up, 3, "(up slots, r, d_out)")
    check_size("down", down, 1, x.shape[-1], "the last size of `x`")
    check_size("up", up, 1, down.shape[2], "the bottleneck size r of `down`")
    for name, bias, weight in (("down_bias", down_bias, down), ("up_bias", up_bias, up)):
        if bias is not None:
            check_rank(name, bias, 2, "(slots, width)")
            check_size(name, bias, 0, weight.shape[0], "the slots of its weight")
            check_size(name, bias, 1, weight.shape[2], "the output width of its weight")
    for name, vector in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if vector is not None:
            check_rank(name, vector, 1, "(d_in,)")
            check_size(name, vector, 0, x.shape[-1], "the last size of `x`")
    if norm_bias is not None and norm_weight is None:
        raise KernelValueError(
            "`norm_weight` must be given with `norm_bias`, but is None. Pass torch.ones(d_in) for a plain "
            "one."
        )


def _check_routing(
    x: Tensor, down: Tensor, up: Tensor, task_ids: Tensor | None, down_slots: Tensor | None,
    up_slots: Tensor | None, offsets: Tensor | None,
) -> int:  # fmt: skip
    if task_ids is not None and offsets is not None:
        raise KernelValueError(
            "`offsets` must not be given together with `task_ids`, but both are. Keep the one that describes "
            "the rows."
        )
    if task_ids is not None:
        check_rank("task_ids", task_ids, 1, "(rows,)")
        check_size("task_ids", task_ids, 0, x.shape[0], "the rows of `x`")
    counts: dict[str, int] = {}
    for name, table, slots in (("down", down_slots, down.shape[0]), ("up", up_slots, up.shape[0])):
        if table is not None:
            check_rank(f"{name}_slots", table, 1, "(tasks,)")
            counts[f"{name}_slots"] = table.shape[0]
        elif slots > 1:
            counts[name] = slots
    if offsets is not None:
        check_rank("offsets", offsets, 1, "(tasks,)")
        counts["offsets"] = offsets.shape[0]
    routed = task_ids is not None or offsets is not None
    if routed and len(set(counts.values())) > 1:
        listed = ", ".join(f"`{name}` {count}" for name, count in counts.items())
        raise KernelShapeError(
            "`down_slots`, `up_slots`, `offsets` and parts without a slot table must agree on the number of "
            "tasks, "
            f"but have {listed}. Add the missing slot table."
        )
    return next(iter(counts.values()), 1)
