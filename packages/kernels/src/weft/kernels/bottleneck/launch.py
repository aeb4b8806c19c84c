"""Launches of the adapter-bottleneck kernels: routing to tiles, and small sums around them in plain torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.kernels.backends import architecture, dot_precision, multiprocessors
from weft.kernels.bottleneck import kernels
from weft.kernels.bottleneck.reference import Gradients, Settings, Weights
from weft.kernels.bottleneck.tile_table import tile_table
from weft.kernels.bottleneck.tiles import slots_of
from weft.kernels.device import on_device
from weft.kernels.dropout import keep_threshold
from weft.kernels.plans import Tile, choose_tile, padded
from weft.kernels.routed_rows import RoutedRows

# Widest bottleneck whose tile stays in registers; wider ones take the two-step plan.
MAX_FUSED_RANK = 128
_MAX_RANK_BLOCK = 128


@dataclass(frozen=True)
class Route:
    """Where the rows of a call go; without `routing` every row is task 0."""

    rows: int
    length: int
    routing: RoutedRows | None
    down_slots: Tensor | None
    up_slots: Tensor | None

    @property
    def tokens(self) -> int:
        """Number of tokens, identity tokens included."""
        return self.rows * self.length

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return 1 if self.routing is None else self.routing.tasks

    @property
    def routed(self) -> bool:
        """Whether rows are told apart."""
        return self.routing is not None

    def order(self) -> Tensor | None:
        """Row at every place of the sorted rows, in memory of its own."""
        if self.routing is None or self.routing.order is not None:
            return None if self.routing is None else self.routing.order
        return torch.arange(self.rows, device=self.routing.ids.device)


@dataclass(frozen=True)
class Tiles:
    """Arguments every tiled kernel takes: `table` holds task, start, end, down slot and up slot of each tile."""

    count: int
    order: Tensor | None
    table: Tensor | None


def tiles_of(route: Route, weights: Weights, block: int) -> Tiles:
    """Tiles of `block` tokens with their slots; identity rows have tiles of task -1."""
    if route.routing is None:
        return Tiles(-(-route.tokens // block), None, None)
    # Identity rows are a group of their own, so that their tiles copy and no second pass over the output is
    # needed.
    bounds = torch.cat((route.routing.bounds.new_zeros(1), route.routing.bounds))
    table = tile_table(bounds, route.tokens, block, route.length)
    task = table.task - 1
    index = task.clamp(min=0)
    down = slots_of(index, weights.down.shape[0], route.down_slots)
    up = slots_of(index, weights.up.shape[0], route.up_slots)
    packed = torch.stack((task, table.start, table.end, down, up)).to(torch.int32)
    return Tiles(task.numel(), route.order(), packed)


def _folded(weights: Weights) -> tuple[Tensor, Tensor | None]:
    """The down-projection and its bias, with the norm's weight and bias multiplied into them.

    With a norm they are γ∘W_down in the working dtype, and for each slot the bias with β·W_down and the column sum
    of γ∘W_down as rounded, float32, shape (slots, 2, r).
    """
    gamma, beta, down = weights.norm_weight, weights.norm_bias, weights.down
    if gamma is None:
        return down, weights.down_bias
    folded = (down * gamma.unsqueeze(-1)).contiguous()
    bias = torch.zeros(down.shape[0], down.shape[2], dtype=torch.float32, device=down.device)
    if weights.down_bias is not None:
        bias += weights.down_bias
    if beta is not None:
        bias += torch.einsum("d,sdr->sr", beta.float(), down.float())
    return folded, torch.stack((bias, folded.float().sum(1)), dim=1)


def scale_kind(scale: Tensor | None) -> str:
    """``none``, ``task`` or ``channel``, as the kernels call it."""
    if scale is None:
        return "none"
    return "task" if scale.shape[1] == 1 else "channel"


def scale_table(scale: Tensor | None, tasks: int) -> Tensor | None:
    """The scale with a row for every task."""
    return None if scale is None else scale.expand(tasks, scale.shape[1]).contiguous()


def plan_tile(kernel: str, x: Tensor, rank: int, tokens: int) -> Tile:
    """Launch parameters of `kernel` for tensors like `x`."""
    return choose_tile(kernel, architecture(x.device), padded(rank), x.element_size(), tokens)


def forward(
    x: Tensor, residual: Tensor | None, weights: Weights, settings: Settings, route: Route, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (rows, length, d_out), z (tokens, r), LN statistics (2, tokens); the last two need `save`."""
    d_in, rank, d_out = x.shape[2], weights.down.shape[2], weights.up.shape[2]
    tokens = route.tokens
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y = x.new_empty((route.rows, route.length, d_out), dtype=dtype)
    norm = weights.norm_weight is not None
    z = x.new_empty((tokens, rank) if save else (0,))
    statistics = x.new_empty((2, tokens if norm else 0) if save else (0,), dtype=torch.float32)
    if tokens == 0:
        return y, z, statistics
    tile = plan_tile("bottleneck_forward", x, rank, tokens)
    tiles = tiles_of(route, weights, tile.block_tokens)
    folded, bias = _folded(weights)
    with on_device(x):
        kernels.bottleneck_forward[(tiles.count,)](
            x, folded, weights.up, bias, weights.up_bias, residual, scale_table(weights.scale, route.tasks),
            tiles.order, tiles.table, settings.seed, y, z, statistics, tokens, route.length, settings.scale,
            D_IN=d_in, D_OUT=d_out, R=rank, ACT=settings.activation, ROUTED=route.routed, NORM_EPS=settings.norm_eps,
            KEPT_SCALE=kept_scale(settings), THRESHOLD=keep_threshold(settings.dropout),
            DOWN_BIAS=bias is not None, UP_BIAS=weights.up_bias is not None, RESIDUAL=residual is not None,
            SCALE=scale_kind(weights.scale), NORM=norm, DROPOUT=settings.dropout > 0, SAVE=save,
            PRECISION=dot_precision(x.dtype), BT=tile.block_tokens, BD=tile.block_width, BR=padded(rank),
            num_warps=tile.num_warps, num_stages=tile.num_stages,
        )  # fmt: skip
    return y, z, statistics


def backward(
    dy: Tensor,
    x: Tensor,
    z: Tensor,
    statistics: Tensor,
    weights: Weights,
    settings: Settings,
    route: Route,
    add_input: bool,
    needs: list[bool],
) -> Gradients:
    """All gradients asked for in `needs` (order of `Gradients`)."""
    need_x, need_down, need_up, need_down_bias, need_up_bias, need_scale, need_gamma, need_beta = needs
    dy = dy.contiguous()
    dz, dx = _backward_input(dy, x, z, statistics, weights, settings, route, add_input, need_x)
    found: dict[str, Tensor] = {}
    if need_up or need_up_bias or need_scale:
        found |= up_gradients(dy, z, weights, settings, route)
    if need_down or need_down_bias or need_gamma or need_beta:
        found |= _down_gradients(x, dz, statistics, weights, route)
    return Gradients(dx if need_x else None, **found)


def _backward_input(
    dy: Tensor, x: Tensor, z: Tensor, statistics: Tensor, weights: Weights, settings: Settings, route: Route,
    add_input: bool, need_x: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rank = weights.down.shape[2]
    dz = torch.empty_like(z)
    dx = torch.empty_like(x)
    if route.tokens == 0:
        return dz, dx
    tile = plan_tile("bottleneck_backward_input", x, rank, route.tokens)
    tiles = tiles_of(route, weights, tile.block_tokens)
    folded, bias = _folded(weights)
    with on_device(x):
        kernels.bottleneck_backward_input[(tiles.count,)](
            dy, x, z, statistics, folded, weights.up, bias, scale_table(weights.scale, route.tasks), tiles.order,
            tiles.table, settings.seed, dz, dx, route.tokens, route.length, settings.scale,
            D_IN=x.shape[2], D_OUT=dy.shape[2], R=rank, ACT=settings.activation, ROUTED=route.routed,
            DOWN_BIAS=bias is not None, SCALE=scale_kind(weights.scale), NORM=weights.norm_weight is not None,
            DROPOUT=settings.dropout > 0, KEPT_SCALE=kept_scale(settings), THRESHOLD=keep_threshold(settings.dropout),
            ADD_INPUT=add_input, NEED_X=need_x, PRECISION=dot_precision(x.dtype), BT=tile.block_tokens,
            BD=tile.block_width, BR=padded(rank), num_warps=tile.num_warps, num_stages=tile.num_stages,
        )  # fmt: skip
    return dz, dx


def up_gradients(
    dy: Tensor, z: Tensor, weights: Weights, settings: Settings, route: Route
) -> dict[str, Tensor]:
    """Gradients of up, up_bias and scale from Σ dyᵀ·act(z) per task, before any scale is applied."""
    by_task, bias_by_task, _ = outer_by_task(
        dy.view(route.tokens, -1), z, route, act=settings.activation, settings=settings, wide_sum=True
    )
    product = by_task.transpose(1, 2)  # (tasks, r, d_out)
    factor: Tensor | float = settings.scale
    slot = slot_of_task(route, weights.up.shape[0], route.up_slots, dy.device)
    found: dict[str, Tensor] = {}
    if weights.scale is not None:
        factor = (weights.scale.float() * settings.scale).expand(route.tasks, weights.scale.shape[1])
        per_channel = (weights.up.float().index_select(0, slot) * product).sum(1)
        if weights.up_bias is not None:
            per_channel += weights.up_bias.float().index_select(0, slot) * bias_by_task
        dscale = per_channel if weights.scale.shape[1] > 1 else per_channel.sum(1, keepdim=True)
        dscale = dscale * settings.scale
        found["scale"] = dscale if weights.scale.shape[0] == route.tasks else dscale.sum(0, keepdim=True)
        product = product * factor.unsqueeze(1)
        bias_by_task = bias_by_task * factor
    else:
        product = product * factor
        bias_by_task = bias_by_task * factor
    found["up"] = sum_by_slot(product, slot, weights.up.shape[0])
    found["up_bias"] = sum_by_slot(bias_by_task, slot, weights.up.shape[0])
    return found


def _down_gradients(
    x: Tensor, dz: Tensor, statistics: Tensor, weights: Weights, route: Route
) -> dict[str, Tensor]:
    """Gradients of down, down_bias and the norm from Σ nᵀ·dz per task."""
    gamma, beta, down = weights.norm_weight, weights.norm_bias, weights.down
    by_task, _, bias_by_task = outer_by_task(
        x.view(route.tokens, -1),
        dz,
        route,
        statistics=statistics if gamma is not None else None,
        narrow_sum=True,
    )
    slot = slot_of_task(route, down.shape[0], route.down_slots, x.device)
    ddown = sum_by_slot(by_task, slot, down.shape[0])
    dbias = sum_by_slot(bias_by_task, slot, down.shape[0])
    if gamma is None:
        return {"down": ddown, "down_bias": dbias}
    wide = down.float()
    found = {"norm_weight": (ddown * wide).sum((0, 2)), "norm_bias": torch.einsum("sdr,sr->d", wide, dbias)}
    full = ddown * gamma.float().unsqueeze(-1)
    if beta is not None:
        full = full + beta.float().view(1, -1, 1) * dbias.unsqueeze(1)
    return {"down": full, "down_bias": dbias, **found}


def outer_by_task(
    wide: Tensor,
    narrow: Tensor,
    route: Route,
    *,
    act: str = "identity",
    settings: Settings | None = None,
    statistics: Tensor | None = None,
    wide_sum: bool = False,
    narrow_sum: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ wideᵀ·act(narrow) per task (tasks, d, r), Σ wide (tasks, d) and Σ narrow (tasks, r), float32.

    Sums over tokens are cut into shares that run in parallel and are added in a fixed order.
    """
    tokens, width = wide.shape
    rank, tasks = narrow.shape[1], route.tasks
    in_block = min(padded(rank), _MAX_RANK_BLOCK)
    tile = plan_tile("outer_partials", wide, in_block, 1 << 20)
    slices = -(-width // tile.block_width)
    rank_blocks = -(-rank // in_block)
    splits = max(1, -(-2 * multiprocessors(wide.device) // (tasks * slices * rank_blocks)))
    splits = max(1, min(splits, -(-tokens // (4 * tile.block_tokens))))
    new: dict[str, Any] = {"dtype": torch.float32, "device": wide.device}
    partial = torch.empty((splits, tasks, width, rank), **new)
    wide_total = torch.empty((splits, tasks, width), **new) if wide_sum else None
    narrow_total = torch.empty((splits, tasks, rank), **new) if narrow_sum else None
    bounds = _bounds(route, wide.device)
    dropout = 0.0 if settings is None else settings.dropout
    with on_device(wide):
        kernels.outer_partials[(slices * rank_blocks, tasks, splits)](
            wide, narrow, statistics, route.order(), bounds, None if settings is None else settings.seed,
            partial, wide_total, narrow_total, tokens, route.length, tasks, splits,
            D=width, R=rank, ACT=act, ROUTED=route.routed, NORM=statistics is not None, DROPOUT=dropout > 0,
            KEPT_SCALE=1.0 if settings is None else kept_scale(settings), THRESHOLD=keep_threshold(dropout),
            WIDE_SUM=wide_sum, NARROW_SUM=narrow_sum, PRECISION=dot_precision(wide.dtype),
            BT=tile.block_tokens, BD=tile.block_width, BR=in_block,
            num_warps=tile.num_warps, num_stages=tile.num_stages,
        )  # fmt: skip
    none = partial.new_empty(0)
    return (
        partial.sum(0),
        none if wide_total is None else wide_total.sum(0),
        none if narrow_total is None else narrow_total.sum(0),
    )


def _bounds(route: Route, device: torch.device) -> Tensor:
    """First position of every task, and the end of the last one, int32."""
    if route.routing is None:
        return torch.arange(2, dtype=torch.int32, device=device) * route.tokens
    return (route.routing.bounds * route.length).to(torch.int32)


def slot_of_task(route: Route, slots: int, table: Tensor | None, device: torch.device) -> Tensor:
    """Slot of every task, int64, shape (tasks,)."""
    return slots_of(torch.arange(route.tasks, device=device), slots, table)


def sum_by_slot(values: Tensor, slot: Tensor, slots: int) -> Tensor:
    """(tasks, ...) summed over the tasks of each slot by a product with the one-hot matrix."""
    member = slot.unsqueeze(0) == torch.arange(slots, device=values.device).unsqueeze(1)
    return (member.to(values.dtype) @ values.flatten(1)).view(slots, *values.shape[1:])


def kept_scale(settings: Settings) -> float:
    """What kept entries are multiplied by."""
    return 1.0 / (1.0 - settings.dropout)
