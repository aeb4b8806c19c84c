"""The adapter bottleneck in plain torch: what the kernels are checked against, and the CPU implementation.

Per token, with s the scale, LN optional and M, M_h and M_i masks of dropout divided by (1 - p):

    n = M_i ∘ LN(x);  z = n W_down + b_down;  h = M_h ∘ act(z);  y = residual + M ∘ (s · (h W_up + b_up))

and backward, with g = M ∘ dy:

    dh = (s · g) W_upᵀ            dW_up = Σ hᵀ (s · g)     db_up = Σ s · g     ds = Σ g ∘ (h W_up + b_up)
    dz = M_h ∘ dh ∘ act'(z)       dW_down = Σ nᵀ dz        db_down = Σ dz
    dx = LN'(M_i ∘ dz W_downᵀ)    dresidual = dy

All sums run over the tokens that use the slot in question. A scale per task is folded into h and b_up, which
are r wide, instead of into dy, which is d wide.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from weft.kernels.backends import accumulator
from weft.kernels.bottleneck.activations import activate, activation_backward
from weft.kernels.bottleneck.call import Call, Gradients, PerInput, gradients
from weft.kernels.bottleneck.segments import SegmentedRows, segment_rows
from weft.kernels.bottleneck.tiles import TiledRows, tile_rows
from weft.kernels.dropout import HIDDEN, INPUT, OUTPUT, keep_mask

Rows = SegmentedRows | TiledRows
LARGE = 2**20  # elements; tensors of this size leave the caches of a CPU core


def forward(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Output (rows, length, d_out), z (tokens, r) and LN statistics (2, tokens) or (2, 0).

    Where rows are left out, z and the statistics hold those visited first, and zeros after them.
    """
    rows = rows_of(call)
    normed, statistics = normalise(rows.gather(call.x), call)
    read = _dropped(normed, rows, call.seed, call.input_dropout, INPUT)
    z = rows.project(read, call.down, "down", call.down_bias)
    h = _hidden(z, rows, call)
    y = _added_up(h, call, rows)
    if not call.save:
        return y, z, statistics
    measured = 0 if call.norm_weight is None else call.tokens
    return y, _padded(z, call.tokens, 0), _padded(statistics, measured, 1)


def backward(call: Call, dy: Tensor, z: Tensor, statistics: Tensor, needs: PerInput[bool]) -> Gradients:
    """All gradients that are needed."""
    rows = rows_of(call)
    z, statistics = z[: rows.tokens], statistics[:, : rows.tokens]
    g = rows.gather(dy.to(call.x.dtype))
    g = _dropped(g, rows, call.seed, call.dropout, OUTPUT)
    h = _hidden(z, rows, call)
    narrow, wide = _scales(call, rows, h.dtype)
    found: dict[str, Tensor | None] = {}
    if needs.scale and call.scale is not None:
        found["scale"] = _scale_gradient(g, h, call, rows)
    if wide is not None:
        g = g * wide
    found["up"], found["up_bias"] = _up_gradients(g, h, call, rows, narrow, needs)
    dh = rows.project(g, call.up.transpose(1, 2), "up")
    dh = _dropped(dh if narrow is None else dh * narrow, rows, call.seed, call.hidden_dropout, HIDDEN)
    dz = activation_backward(dh, z, call.activation)
    if needs.down_bias:
        found["down_bias"] = rows.sum_by_slot(dz, call.slots("down"), "down")
    if needs.down:
        normed, _ = normalise(rows.gather(call.x), call)
        read = _dropped(normed, rows, call.seed, call.input_dropout, INPUT)
        found["down"] = rows.outer(read, dz, call.down, "down")
    if needs.x or needs.norm_weight or needs.norm_bias:
        found |= _input_gradients(dy if call.add_input else None, dz, statistics, call, rows)
    return gradients(found)


def rows_of(call: Call) -> Rows:
    """The rows as they are visited: by runs where reading them on the host costs nothing, else by tiles."""
    on_host = call.ids is None or call.x.device.type == "cpu" or not call.tokens
    return segment_rows(call) if on_host else tile_rows(call)


def _padded(values: Tensor, tokens: int, dim: int) -> Tensor:
    missing = tokens - values.shape[dim]
    return functional.pad(values, (0, missing) if dim else (0, 0, 0, missing)) if missing else values


def _hidden(z: Tensor, rows: Rows, call: Call) -> Tensor:
    return _dropped(activate(z, call.activation), rows, call.seed, call.hidden_dropout, HIDDEN)


def normalise(tokens: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """LN of (tokens, d_in), and mean and 1/std (2, tokens); the tokens and (2, 0) without a norm."""
    gamma, beta = call.norm_weight, call.norm_bias
    dtype = accumulator(tokens.dtype)
    if gamma is None:
        return tokens, tokens.new_empty(2, 0, dtype=dtype)
    beta = None if beta is None else beta.to(dtype)
    normed, mean, rstd = torch.native_layer_norm(
        tokens.to(dtype), [tokens.shape[-1]], gamma.to(dtype), beta, call.norm_eps
    )
    return normed.to(tokens.dtype), torch.stack((mean.reshape(-1), rstd.reshape(-1)))


def normalise_backward(
    gradient: Tensor, tokens: Tensor, statistics: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the tokens, of the norm's weight and of its bias."""
    dtype = statistics.dtype
    mean, rstd = statistics[0].unsqueeze(-1), statistics[1].unsqueeze(-1)
    dx, dgamma, dbeta = torch.ops.aten.native_layer_norm_backward(
        gradient.to(dtype), tokens.to(dtype), [tokens.shape[-1]], mean, rstd,
        gamma.to(dtype), torch.zeros_like(gamma, dtype=dtype), [True, True, True],
    )  # fmt: skip
    return dx.to(tokens.dtype), dgamma, dbeta


def _scales(call: Call, rows: Rows, dtype: torch.dtype) -> tuple[Tensor | float | None, Tensor | None]:
    """The scale as a factor of r-wide tensors, or, if it varies over channels, of d-wide ones."""
    if call.scale is None:
        return (None if call.factor == 1.0 else call.factor), None
    per_token = rows.per_token(call.scale.to(dtype) * call.factor)
    return (per_token, None) if call.scale.shape[1] == 1 else (None, per_token)


def _added_up(h: Tensor, call: Call, rows: Rows) -> Tensor:
    """The scaled product with the up part, dropped and added to the base: (rows, length, d_out)."""
    narrow, wide = _scales(call, rows, h.dtype)
    bias, late = call.up_bias, wide
    if narrow is not None and (bias is None or isinstance(narrow, float)):
        h = h * narrow
        bias = None if bias is None else bias * narrow
    elif isinstance(narrow, Tensor):
        late = narrow
    if late is None and not call.dropout:
        return rows.project_onto(call.base, h, call.up, "up", bias)
    delta = rows.project(h, call.up, "up", bias)
    if late is not None:
        delta *= late
    if call.dropout:
        delta *= _multiplier(delta, rows, call.seed, call.dropout, OUTPUT)
    return rows.add_to(call.base, delta)


def _input_gradients(
    onto: Tensor | None, dz: Tensor, statistics: Tensor, call: Call, rows: Rows
) -> dict[str, Tensor | None]:
    """Gradients of the inputs, added to `onto`, and of the norm."""
    down = call.down.transpose(1, 2)
    if call.norm_weight is None and not call.input_dropout:
        return {"x": rows.project_onto(onto, dz, down, "down")}
    dx = _dropped(rows.project(dz, down, "down"), rows, call.seed, call.input_dropout, INPUT)
    if call.norm_weight is None:
        return {"x": rows.add_to(onto, dx)}
    dx, weight, bias = normalise_backward(dx, rows.gather(call.x), statistics, call.norm_weight)
    return {"x": rows.add_to(onto, dx), "norm_weight": weight, "norm_bias": bias}


def _up_gradients(
    g: Tensor, h: Tensor, call: Call, rows: Rows, narrow: Tensor | float | None, needs: PerInput[bool]
) -> tuple[Tensor | None, Tensor | None]:
    if not (needs.up or needs.up_bias):
        return None, None
    slots, rank = call.up.shape[:2]
    if needs.up_bias and call.up.numel() < LARGE:
        # One more column in h makes the bias gradient the last row of the same product: one pass over g less,
        # for a copy of the result, which costs more than that pass where it does not fit into caches.
        widened = torch.cat((h, h.new_ones(h.shape[0], 1)), 1)
        both = rows.outer(widened if narrow is None else widened * narrow, g, call.up, "up")
        return both[:, :rank].contiguous(), both[:, rank].contiguous()
    total = g.new_zeros(slots, g.shape[1]) if needs.up_bias else None
    scaled = g * narrow if isinstance(narrow, Tensor) and needs.up_bias else g
    dup = None
    if needs.up:
        sums = total if scaled is g else None
        dup = rows.outer(h if narrow is None else h * narrow, g, call.up, "up", sums)
    if total is None:
        return dup, None
    if scaled is not g or dup is None:
        total = rows.sum_by_slot(scaled, slots, "up")
    return dup, total * narrow if isinstance(narrow, float) else total


def _scale_gradient(g: Tensor, h: Tensor, call: Call, rows: Rows) -> Tensor:
    assert call.scale is not None
    delta = rows.project(h, call.up, "up", call.up_bias)
    by_task = rows.sum_by_task(delta.mul_(g), call.scale.shape[0])
    return by_task if call.scale.shape[1] > 1 else by_task.sum(1, keepdim=True)


def _dropped(values: Tensor, rows: Rows, seed: Tensor | None, dropout: float, stream: int) -> Tensor:
    return values * _multiplier(values, rows, seed, dropout, stream) if dropout else values


def _multiplier(like: Tensor, rows: Rows, seed: Tensor | None, dropout: float, stream: int) -> Tensor:
    assert seed is not None
    keep = keep_mask(seed, rows.token_indices(like.device), like.shape[1], dropout, stream)
    return keep.to(like.dtype) / (1.0 - dropout)
