"""The public function `adapter_bottleneck`: checks, defaults, one call of the op."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import weft.kernels.bottleneck.op  # noqa: F401  (registers the op)
from weft.kernels.backends import check_backend, use_triton
from weft.kernels.bottleneck.activations import ACTIVATIONS
from weft.kernels.bottleneck.weights import BottleneckWeights
from weft.kernels.checks import (
    check_choice,
    check_floating,
    check_integer,
    check_is_tensor,
    check_probability,
    check_rank,
    check_shape,
    check_size,
    check_tensors,
)
from weft.kernels.errors import KernelShapeError, KernelTypeError, KernelValueError
from weft.kernels.routed_rows import RoutedRows


def adapter_bottleneck(
    x: Tensor,
    weights: BottleneckWeights,
    routing: RoutedRows | None = None,
    *,
    residual: Tensor | None = None,
    scale: float | Tensor = 1.0,
    activation: str = "gelu_tanh",
    input_dropout: float = 0.0,
    hidden_dropout: float = 0.0,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Bottleneck adapters of many tasks in one call.

    For a row of task t, with D and U the down and up slot of t and s its scale::

        h = hidden_dropout(act(input_dropout(norm(x)) · down[D] + down_bias[D]))
        y = residual + dropout(s · (h · up[U] + up_bias[U]))

    Rows of task -1 pass through: their output is `residual`, or zero without one. The scale multiplies the up
    bias too. With activation ``identity``, no biases and ``residual = x · W`` this is LoRA for many tasks.

    The weights are used in the dtype of `x` (under autocast, of autocast); `residual` keeps its own.

    Args:
        x: inputs, shape (rows, ..., d_in); a row, with everything in its middle dimensions, has one task.
        weights: the tensors of the adapter.
        routing: whose each row is, from `route_rows`. None: every row is task 0.
        residual: added to the result, shape (rows, ..., d_out). Pass `x` itself for the usual adapter.
        scale: a number, or a tensor of shape (), (tasks,) or (tasks, d_out), which may be trained.
        activation: ``relu``, ``gelu`` (exact), ``gelu_tanh``, ``silu`` or ``identity``.
        input_dropout: probability of dropping an entry of the normalised input, in [0, 1).
        hidden_dropout: the same for the hidden values, after the activation.
        dropout: the same for the scaled output.
        seed: int or one-element int64 tensor that fixes the masks. None: drawn from torch's generator.
        backend: ``auto`` (Triton on CUDA where possible), ``triton`` or ``torch``.

    Returns:
        Tensor of shape (rows, ..., d_out) in the dtype of `x`, promoted with that of `residual`.

    Raises:
        KernelShapeError: ranks or sizes disagree.
        KernelTypeError: a dtype is wrong, or an argument is not a tensor.
        KernelDeviceError: tensors live on different devices.
        KernelValueError: slots, a dropout, `activation` or `backend` are out of range.
        KernelBackendError: `backend` cannot run here.
        DoubleBackwardError: a second derivative is asked for.

    Source: Houlsby et al. 2019, eq. of section 2.1 (residual bottleneck); Sung et al. 2022 (VL-Adapter),
    section 3.2 (sharing across tasks). Slots per part generalise their half-shared variant.

    Example:
        >>> from weft.kernels import BottleneckWeights, route_rows
        >>> x = torch.randn(4, 7, 32)
        >>> weights = BottleneckWeights(down=torch.randn(1, 32, 8), up=torch.zeros(3, 8, 32))
        >>> rows = route_rows(torch.tensor([2, 0, -1, 1]), tasks=3)
        >>> torch.equal(adapter_bottleneck(x, weights, rows, residual=x), x)
        True
    """
    _check(x, weights, routing, residual)
    check_choice("activation", activation, ACTIVATIONS)
    dropouts = {"input_dropout": input_dropout, "hidden_dropout": hidden_dropout, "dropout": dropout}
    for name, probability in dropouts.items():
        check_probability(name, probability)
    check_backend(backend)
    d_out = weights.up.shape[2]
    tasks = max(weights.down.shape[0], weights.up.shape[0]) if routing is None else routing.tasks
    scale_table, factor = _scale(scale, x, d_out, tasks)
    if routing is None:
        weights = _of_first_task(weights)
        scale_table = None if scale_table is None else scale_table[:1]
    rows, width = x.shape[0], x.shape[-1]
    length = x.shape[1:-1].numel()
    is_linear = activation == "identity" and scale_table is None and not any(dropouts.values())
    if routing is None and is_linear and _is_plain_pair(x, weights, residual) and not use_triton(x, backend):
        return _plain_pair(x, weights, residual, factor)
    add_input = residual is x
    y, _, _ = torch.ops.weft.adapter_bottleneck(
        x.reshape(rows, length, width),
        _as(weights.down, x),
        _as(weights.up, x),
        _as(weights.down_bias, x),
        _as(weights.up_bias, x),
        None if add_input or residual is None else residual.reshape(rows, length, d_out),
        scale_table,
        _as(weights.norm_weight, x),
        _as(weights.norm_bias, x),
        *((None, None, None) if routing is None else routing),
        weights.down_slots,
        weights.up_slots,
        _seed(seed, x) if any(dropouts.values()) else None,
        factor,
        weights.norm_eps,
        *dropouts.values(),
        activation,
        add_input,
        torch.is_grad_enabled(),
        backend,
    )
    return y.reshape(*x.shape[:-1], d_out)


def _is_plain_pair(x: Tensor, weights: BottleneckWeights, residual: Tensor | None) -> bool:
    """Whether two products in one dtype on the CPU are all there is to do; calling the op would take longer."""
    down, up = weights.down, weights.up
    return (
        x.device.type == "cpu"
        and down.shape[0] == up.shape[0] == 1
        and all(value is None for value in (weights.down_bias, weights.up_bias, weights.norm_weight))
        and x.dtype == down.dtype == up.dtype
        and (residual is None or residual.dtype == x.dtype)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _plain_pair(x: Tensor, weights: BottleneckWeights, residual: Tensor | None, factor: float) -> Tensor:
    """``residual + factor · x · down · up``, in the order of the reference."""
    down, up = weights.down.squeeze(0), weights.up.squeeze(0)
    h = torch.mm(x.reshape(-1, x.shape[-1]), down)
    y = torch.mm(h if factor == 1.0 else h * factor, up).view(*x.shape[:-1], up.shape[1])
    return y if residual is None else y.add_(residual)


def _as(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype == like.dtype else tensor.to(like.dtype)


def _of_first_task(weights: BottleneckWeights) -> BottleneckWeights:
    """The slots of task 0 alone, without tables."""
    if weights.down_slots is None and weights.up_slots is None:
        return weights

    def first(value: Tensor | None, table: Tensor | None) -> Any:
        return value if value is None or table is None else value.index_select(0, table[:1])

    return replace(
        weights,
        down=first(weights.down, weights.down_slots),
        up=first(weights.up, weights.up_slots),
        down_bias=first(weights.down_bias, weights.down_slots),
        up_bias=first(weights.up_bias, weights.up_slots),
        down_slots=None,
        up_slots=None,
    )


def _seed(seed: int | Tensor | None, x: Tensor) -> Tensor:
    if seed is None:
        return torch.randint(0, 1 << 62, (1,), device=x.device)
    if isinstance(seed, Tensor):
        if seed.numel() != 1 or seed.dtype != torch.int64:
            raise KernelTypeError(
                f"`seed` must be an int or one int64 element, but is {seed.dtype} of shape "
                f"{tuple(seed.shape)}. Use torch.tensor([seed])."
            )
        return seed.reshape(1)
    return torch.full((1,), seed, dtype=torch.int64, device=x.device)


def _scale(scale: float | Tensor, x: Tensor, d_out: int, tasks: int) -> tuple[Tensor | None, float]:
    """The scale as a (tasks or 1, 1 or d_out) table, or as a factor."""
    if not isinstance(scale, Tensor):
        return None, float(scale)
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
            f"{table.shape[0]}. Index it by task."
        )
    return _as(table, x), 1.0


def _check(
    x: Tensor, weights: BottleneckWeights, routing: RoutedRows | None, residual: Tensor | None
) -> None:
    """Static checks of one call."""
    check_is_tensor("x", x)
    if not isinstance(weights, BottleneckWeights):
        raise KernelTypeError(
            f"`weights` must be a BottleneckWeights, but is a {type(weights).__name__}. Write "
            "BottleneckWeights(down=..., up=...)."
        )
    if routing is not None and not isinstance(routing, RoutedRows):
        raise KernelTypeError(
            f"`routing` must be a RoutedRows, but is a {type(routing).__name__}. Write route_rows(task_ids, tasks)."
        )
    floats = {"x": x, "residual": residual, **weights.floats}
    ids = None if routing is None else routing.ids
    check_tensors(x, floats | weights.tables | {"routing.ids": ids})
    check_floating(floats)
    check_integer(weights.tables)
    if x.dim() < 2:
        raise KernelShapeError(
            f"`x` must have shape (rows, ..., d_in), but has shape {tuple(x.shape)}. Add a leading dimension."
        )
    _check_weights(x, weights)
    check_shape("residual", residual, (*x.shape[:-1], weights.up.shape[2]), "d_out of `up`")
    if routing is not None:
        check_size("routing.ids", routing.ids, 0, x.shape[0], "the rows of `x`")
        _check_tasks(weights, routing.tasks)


def _check_weights(x: Tensor, weights: BottleneckWeights) -> None:
    down, up = weights.down, weights.up
    check_rank("down", down, 3, "(down slots, d_in, r)")
    check_rank("up", up, 3, "(up slots, r, d_out)")
    check_size("down", down, 1, x.shape[-1], "the last size of `x`")
    check_size("up", up, 1, down.shape[2], "the bottleneck size r of `down`")
    for name, bias, weight in (("down_bias", weights.down_bias, down), ("up_bias", weights.up_bias, up)):
        check_rank(name, bias, 2, "(slots, width)")
        check_size(name, bias, 0, weight.shape[0], "the slots of its weight")
        check_size(name, bias, 1, weight.shape[2], "the output width of its weight")
    for name, vector in (("norm_weight", weights.norm_weight), ("norm_bias", weights.norm_bias)):
        check_rank(name, vector, 1, "(d_in,)")
        check_size(name, vector, 0, x.shape[-1], "the last size of `x`")
    if weights.norm_bias is not None and weights.norm_weight is None:
        raise KernelValueError(
            "`norm_weight` must be given with `norm_bias`, but is None. Pass torch.ones(d_in) for a plain one."
        )
    for name, table in weights.tables.items():
        check_rank(name, table, 1, "(tasks,)")


def _check_tasks(weights: BottleneckWeights, tasks: int) -> None:
    for part, weight in (("down", weights.down), ("up", weights.up)):
        table = weights.tables[f"{part}_slots"]
        if table is not None:
            check_size(f"{part}_slots", table, 0, tasks, "the tasks of `routing`")
        elif weight.shape[0] not in (1, tasks):
            raise KernelShapeError(
                f"`{part}` must have one slot, or one for each of the {tasks} tasks of `routing`, but has "
                f"{weight.shape[0]}. Say which task uses which with `{part}_slots`."
            )
