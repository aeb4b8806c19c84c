"""Launches of the adapter-bottleneck kernels: rows to tiles, and small sums around them in plain torch.

A bottleneck of at most `MAX_FUSED_RANK` takes one kernel each way and one per weight gradient. A wider one, which is
bound by arithmetic, and dropout of a normalised input take two grouped products each way, with the LayerNorm as a
library call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.kernels.backends import multiprocessors, on_device
from weft.kernels.bottleneck import kernels
from weft.kernels.bottleneck.call import Call, Gradients, PerInput, gradients
from weft.kernels.bottleneck.reference import normalise, normalise_backward
from weft.kernels.bottleneck.tiles import slots_of, tile_table
from weft.kernels.dropout import HIDDEN, INPUT, OUTPUT, keep_threshold
from weft.kernels.plans.choosing import LaunchPlan, padded, plan_for

# Widest bottleneck whose tile stays in registers.
MAX_FUSED_RANK = 128
_MAX_RANK_BLOCK = 128
_COLUMNS = 128


def forward(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.forward`, with all tokens in their order; z and the statistics may be empty without `save`."""
    call = call.dense()
    return _fused_forward(call) if _fused(call) else _stepwise_forward(call)


def backward(call: Call, dy: Tensor, z: Tensor, statistics: Tensor, needs: PerInput[bool]) -> Gradients:
    """As `reference.backward`."""
    call, dy = call.dense(), dy.contiguous()
    if _fused(call):
        return _fused_backward(call, dy, z, statistics, needs)
    return _stepwise_backward(call, dy, z, statistics)


def _fused(call: Call) -> bool:
    masked_norm = call.input_dropout > 0 and call.norm_weight is not None
    return call.down.shape[2] <= MAX_FUSED_RANK and not masked_norm


def _order(call: Call) -> Tensor | None:
    """Row at every place of the sorted rows, in its own memory."""
    if call.ids is None or call.order is not None:
        return call.order
    return torch.arange(call.rows, device=call.ids.device)


def _tiles(call: Call, block: int) -> tuple[int, Tensor | None, Tensor | None]:
    """Number of tiles of `block` tokens, the order of the rows, and task, start, end, down and up slot of each tile."""
    if call.bounds is None:
        return -(-call.tokens // block), None, None
    # Identity rows are a group of their own, with tiles of task -1, so that their tiles copy and no second pass over
    # the output is needed.
    bounds = torch.cat((call.bounds.new_zeros(1), call.bounds))
    table = tile_table(bounds, call.tokens, block, call.length)
    task = table.task - 1
    index = task.clamp(min=0)
    slots = (slots_of(call, index, part) for part in ("down", "up"))
    return task.numel(), _order(call), torch.stack((task, table.start, table.end, *slots)).to(torch.int32)


def _folded(call: Call) -> tuple[Tensor, Tensor | None]:
    """The down-projection and its bias, with the norm's weight and bias multiplied into them.

    With a norm they are γ∘W_down in the working dtype, and for each slot the bias with β·W_down and the column sum
    of γ∘W_down as rounded, float32, shape (slots, 2, r).
    """
    gamma, beta, down = call.norm_weight, call.norm_bias, call.down
    if gamma is None:
        return down, call.down_bias
    folded = (down * gamma.unsqueeze(-1)).contiguous()
    bias = torch.zeros(down.shape[0], down.shape[2], dtype=torch.float32, device=down.device)
    if call.down_bias is not None:
        bias += call.down_bias
    if beta is not None:
        bias += torch.einsum("d,sdr->sr", beta.float(), down.float())
    return folded, torch.stack((bias, folded.float().sum(1)), dim=1)


def _scale_kind(scale: Tensor | None) -> str:
    """``none``, ``task`` or ``channel``, as the kernels call it."""
    if scale is None:
        return "none"
    return "task" if scale.shape[1] == 1 else "channel"


def _scale_table(call: Call) -> Tensor | None:
    """The scale with a row for every task."""
    return None if call.scale is None else call.scale.expand(call.tasks, -1).contiguous()


def _drops(call: Call) -> dict[str, int]:
    """Thresholds of dropout, 0 for none."""
    return {
        "DROP_INPUT": keep_threshold(call.input_dropout),
        "DROP_HIDDEN": keep_threshold(call.hidden_dropout),
        "DROP": keep_threshold(call.dropout),
    }


def _fused_forward(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    x, residual, save, tokens = call.x, call.base, call.save, call.tokens
    d_in, rank, d_out = x.shape[2], call.down.shape[2], call.up.shape[2]
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y = x.new_empty((call.rows, call.length, d_out), dtype=dtype)
    norm = call.norm_weight is not None
    z = x.new_empty((tokens, rank) if save else (0,))
    statistics = x.new_empty((2, tokens if norm else 0) if save else (0,), dtype=torch.float32)
    if tokens == 0:
        return y, z, statistics
    plan = plan_for("bottleneck_forward", x, rank, tokens)
    count, order, table = _tiles(call, plan.block_tokens)
    folded, bias = _folded(call)
    with on_device(x):
        kernels.bottleneck_forward[(count,)](
            x, folded, call.up, bias, call.up_bias, residual, _scale_table(call), order, table, call.seed, y, z,
            statistics, tokens, call.length, call.factor,
            D_IN=d_in, D_OUT=d_out, R=rank, ACT=call.activation, ROUTED=table is not None, NORM_EPS=call.norm_eps,
            DOWN_BIAS=bias is not None, UP_BIAS=call.up_bias is not None, RESIDUAL=residual is not None,
            SCALE=_scale_kind(call.scale), NORM=norm, SAVE=save, BR=padded(rank), **_drops(call), **plan.constants(x),
        )  # fmt: skip
    return y, z, statistics


def _fused_backward(
    call: Call, dy: Tensor, z: Tensor, statistics: Tensor, needs: PerInput[bool]
) -> Gradients:
    dz, dx = _backward_input(call, dy, z, statistics, needs.x)
    found: dict[str, Tensor | None] = {"x": dx}
    if needs.up or needs.up_bias or needs.scale:
        found |= _up_gradients(call, dy, z)
    if needs.down or needs.down_bias or needs.norm_weight or needs.norm_bias:
        normed = call.norm_weight is not None
        found |= _down_gradients(call, call.x.view(call.tokens, -1), dz, statistics if normed else None)
    return gradients(found)


def _backward_input(
    call: Call, dy: Tensor, z: Tensor, statistics: Tensor, need_x: bool
) -> tuple[Tensor, Tensor]:
    x, rank = call.x, call.down.shape[2]
    dz, dx = torch.empty_like(z), torch.empty_like(x)
    if call.tokens == 0:
        return dz, dx
    plan = plan_for("bottleneck_backward_input", x, rank, call.tokens)
    count, order, table = _tiles(call, plan.block_tokens)
    folded, bias = _folded(call)
    with on_device(x):
        kernels.bottleneck_backward_input[(count,)](
            dy, x, z, statistics, folded, call.up, bias, _scale_table(call), order, table, call.seed, dz, dx,
            call.tokens, call.length, call.factor,
            D_IN=x.shape[2], D_OUT=dy.shape[2], R=rank, ACT=call.activation, ROUTED=table is not None,
            DOWN_BIAS=bias is not None, SCALE=_scale_kind(call.scale), NORM=call.norm_weight is not None,
            ADD_INPUT=call.add_input, NEED_X=need_x, BR=padded(rank), **_drops(call), **plan.constants(x),
        )  # fmt: skip
    return dz, dx


def _up_gradients(call: Call, dy: Tensor, z: Tensor) -> dict[str, Tensor | None]:
    """Gradients of up, up_bias and scale from Σ dyᵀ·h per task, before any scale is applied."""
    by_task, bias_by_task, _ = outer_by_task(
        dy.view(call.tokens, -1), z, call, act=call.activation, wide_dropout=(call.dropout, OUTPUT),
        narrow_dropout=call.hidden_dropout, wide_sum=True,
    )  # fmt: skip
    product = by_task.transpose(1, 2)  # (tasks, r, d_out)
    slot = _slot_of_task(call, "up")
    found: dict[str, Tensor | None] = {}
    if call.scale is None:
        product, bias_by_task = product * call.factor, bias_by_task * call.factor
    else:
        per_channel = (call.up.float().index_select(0, slot) * product).sum(1)
        if call.up_bias is not None:
            per_channel += call.up_bias.float().index_select(0, slot) * bias_by_task
        dscale = per_channel if call.scale.shape[1] > 1 else per_channel.sum(1, keepdim=True)
        dscale = dscale * call.factor
        found["scale"] = dscale if call.scale.shape[0] == call.tasks else dscale.sum(0, keepdim=True)
        factor = (call.scale.float() * call.factor).expand(call.tasks, -1)
        product, bias_by_task = product * factor.unsqueeze(1), bias_by_task * factor
    found["up"] = _sum_by_slot(product, slot, call.slots("up"))
    found["up_bias"] = _sum_by_slot(bias_by_task, slot, call.slots("up"))
    return found


def _down_gradients(
    call: Call, wide: Tensor, dz: Tensor, statistics: Tensor | None
) -> dict[str, Tensor | None]:
    """Gradients of down and down_bias from Σ wideᵀ·dz per task, and with statistics those of the norm."""
    by_task, _, bias_by_task = outer_by_task(
        wide, dz, call, wide_dropout=(call.input_dropout, INPUT), statistics=statistics, narrow_sum=True
    )
    slot, slots = _slot_of_task(call, "down"), call.slots("down")
    ddown, dbias = _sum_by_slot(by_task, slot, slots), _sum_by_slot(bias_by_task, slot, slots)
    if statistics is None or call.norm_weight is None:
        return {"down": ddown, "down_bias": dbias}
    weight = call.down.float()
    full = ddown * call.norm_weight.float().unsqueeze(-1)
    if call.norm_bias is not None:
        full = full + call.norm_bias.float().view(1, -1, 1) * dbias.unsqueeze(1)
    norm_weight, norm_bias = (ddown * weight).sum((0, 2)), torch.einsum("sdr,sr->d", weight, dbias)
    return {"down": full, "down_bias": dbias, "norm_weight": norm_weight, "norm_bias": norm_bias}


def outer_by_task(
    wide: Tensor,
    narrow: Tensor,
    call: Call | None = None,
    *,
    act: str = "identity",
    wide_dropout: tuple[float, int] = (0.0, OUTPUT),
    narrow_dropout: float = 0.0,
    statistics: Tensor | None = None,
    wide_sum: bool = False,
    narrow_sum: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ wideᵀ·act(narrow) per task (tasks, d, r), Σ wide (tasks, d) and Σ narrow (tasks, r), float32.

    Sums over tokens are cut into shares that run in parallel and are added in a fixed order. Without a call all
    tokens are of one task.
    """
    tokens, width = wide.shape
    rank, tasks = narrow.shape[1], 1 if call is None else call.tasks
    in_block = min(padded(rank), _MAX_RANK_BLOCK)
    plan = plan_for("outer_partials", wide, in_block, 1 << 20)
    slices = -(-width // plan.block_width)
    rank_blocks = -(-rank // in_block)
    splits = max(1, -(-2 * multiprocessors(wide.device) // (tasks * slices * rank_blocks)))
    splits = max(1, min(splits, -(-tokens // (4 * plan.block_tokens))))
    new: dict[str, Any] = {"dtype": torch.float32, "device": wide.device}
    partial = torch.empty((splits, tasks, width, rank), **new)
    wide_total = torch.empty((splits, tasks, width), **new) if wide_sum else None
    narrow_total = torch.empty((splits, tasks, rank), **new) if narrow_sum else None
    routed = call is not None and call.bounds is not None
    with on_device(wide):
        kernels.outer_partials[(slices * rank_blocks, tasks, splits)](
            wide, narrow, statistics, None if call is None else _order(call), _bounds(call, wide),
            None if call is None else call.seed, partial, wide_total, narrow_total, tokens,
            1 if call is None else call.length, tasks, splits,
            D=width, R=rank, ACT=act, ROUTED=routed, NORM=statistics is not None,
            DROP_WIDE=keep_threshold(wide_dropout[0]), WIDE_STREAM=wide_dropout[1],
            DROP_NARROW=keep_threshold(narrow_dropout), WIDE_SUM=wide_sum, NARROW_SUM=narrow_sum,
            BR=in_block, **plan.constants(wide),
        )  # fmt: skip
    wide_sums, narrow_sums = (
        partial.new_empty(0) if total is None else total.sum(0) for total in (wide_total, narrow_total)
    )
    return partial.sum(0), wide_sums, narrow_sums


def _bounds(call: Call | None, wide: Tensor) -> Tensor:
    """First position of every task, and the end of the last one, int32."""
    if call is None or call.bounds is None:
        return torch.arange(2, dtype=torch.int32, device=wide.device) * wide.shape[0]
    return (call.bounds * call.length).to(torch.int32)


def _slot_of_task(call: Call, part: str) -> Tensor:
    """Slot of every task, int64, shape (tasks,)."""
    return slots_of(call, torch.arange(call.tasks, device=call.x.device), part)


def _sum_by_slot(values: Tensor, slot: Tensor, slots: int) -> Tensor:
    """(tasks, ...) summed over the tasks of each slot by a product with the one-hot matrix."""
    member = slot.unsqueeze(0) == torch.arange(slots, device=values.device).unsqueeze(1)
    return (member.to(values.dtype) @ values.flatten(1)).view(slots, *values.shape[1:])


def _stepwise_forward(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    x, residual, tokens, d_out = call.x, call.base, call.tokens, call.up.shape[2]
    normed, statistics = normalise(x.view(tokens, -1), call)
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    z = x.new_empty((tokens, call.down.shape[2]))
    y = x.new_empty((tokens, d_out), dtype=dtype)
    if tokens:
        plan = plan_for("grouped_product", x, _COLUMNS, tokens)
        tiles = _tiles(call, plan.block_tokens)
        _product(
            call, normed, z, "down", tiles, plan, bias=call.down_bias, drop_in=(call.input_dropout, INPUT)
        )
        _product(
            call, z, y, "up", tiles, plan, bias=call.up_bias, scale=_scale_table(call), factor=call.factor,
            act=call.activation, residual=None if residual is None else residual.view(tokens, d_out),
            drop_in=(call.hidden_dropout, HIDDEN), drop_out=(call.dropout, OUTPUT),
        )  # fmt: skip
    return y.view(call.rows, call.length, d_out), z, statistics


def _stepwise_backward(call: Call, dy: Tensor, z: Tensor, statistics: Tensor) -> Gradients:
    tokens, norm = call.tokens, call.norm_weight
    x, incoming = call.x.view(tokens, -1), dy.view(tokens, -1)
    dz, dx = torch.empty_like(z), torch.empty_like(x)
    adds = call.add_input and norm is None
    if tokens:
        plan = plan_for("grouped_product", x, _COLUMNS, tokens)
        tiles = _tiles(call, plan.block_tokens)
        _product(
            call, incoming, dz, "up", tiles, plan, transposed=True, z=z, scale=_scale_table(call),
            factor=call.factor, in_scale=_scale_kind(call.scale) == "channel", back_act=call.activation,
            drop_in=(call.dropout, OUTPUT), drop_out=(call.hidden_dropout, HIDDEN),
        )  # fmt: skip
        _product(
            call, dz, dx, "down", tiles, plan, transposed=True, residual=incoming if adds else None,
            drop_out=(call.input_dropout, INPUT),
        )  # fmt: skip
    normed, _ = normalise(x, call)
    found = _up_gradients(call, dy, z) | _down_gradients(call, normed, dz, None)
    if norm is not None:
        dx, found["norm_weight"], found["norm_bias"] = normalise_backward(dx, x, statistics, norm)
    found["x"] = (dx if adds or not call.add_input else dx + incoming).view_as(call.x)
    return gradients(found)


def _product(
    call: Call, a: Tensor, out: Tensor, part: str, tiles: tuple[int, Tensor | None, Tensor | None],
    plan: LaunchPlan, **flags: Any,
) -> None:  # fmt: skip
    """Launch `grouped_product` with the weight of a part and the optional factors named in `flags`."""
    count, order, table = tiles
    tensors = {name: flags.get(name) for name in ("bias", "scale", "residual", "z")}
    kind, scaled_in = _scale_kind(tensors["scale"]), flags.get("in_scale", False)
    drop_in, drop_out = flags.get("drop_in", (0.0, OUTPUT)), flags.get("drop_out", (0.0, OUTPUT))
    inner, columns = a.shape[1], out.shape[1]
    with on_device(a):
        kernels.grouped_product[(count, -(-columns // _COLUMNS))](
            a, call.up if part == "up" else call.down, tensors["bias"], tensors["scale"], tensors["residual"],
            tensors["z"], order, table, call.seed, out, call.tokens, call.length, flags.get("factor", 1.0),
            K=inner, N=columns, UP=part == "up", TRANSPOSED=flags.get("transposed", False),
            ACT=flags.get("act", "identity"), BACK_ACT=flags.get("back_act", "identity"),
            BIAS=tensors["bias"] is not None, IN_SCALE=kind if scaled_in else "none",
            SCALE="none" if scaled_in else kind, RESIDUAL=tensors["residual"] is not None,
            DROP_IN=keep_threshold(drop_in[0]), IN_STREAM=drop_in[1], DROP_OUT=keep_threshold(drop_out[0]),
            OUT_STREAM=drop_out[1], ROUTED=table is not None, BN=_COLUMNS, **plan.constants(a, width="BK"),
        )  # fmt: skip
