"""Counter-based dropout: the mask is a function of (seed, row, column) and nothing else.

No mask is ever stored: forward and backward recompute it, checkpointing reproduces it, and neither tile
sizes nor the order in which rows are visited change it. The generator is a 32-bit integer hash with full
avalanche,

    mix(v): v ^= v >> 16;  v *= 0x7FEB352D;  v ^= v >> 15;  v *= 0x846CA68B;  v ^= v >> 16
    key(row)    = mix(row_low ^ mix(row_high ^ mix(seed_low ^ mix(seed_high))))
    draw        = mix(column * 0x9E3779B9 ^ key(row))
    keep        = (draw >> 8) >= dropout * 2**24

in wrapping 32-bit arithmetic; the Triton kernels compute the same bits. Masks of one call at different places draw
from streams of their own: the seed is xored with the stream.

Source: the multipliers are those of a published search for low-bias two-round xor-shift-multiply hashes
(C. Wellons, "hash-prospector", 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

OUTPUT, HIDDEN, INPUT = 0, 1 << 60, 1 << 61  # streams


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


_FIRST, _SECOND, _GOLDEN = _signed(0x7FEB352D), _signed(0x846CA68B), _signed(0x9E3779B9)


def _shifted(value: Tensor, bits: int) -> Tensor:
    # int32 shifts keep the sign; the mask makes them logical.
    return (value >> bits) & ((1 << (32 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = value ^ _shifted(value, 16)
    value = value * _FIRST
    value = value ^ _shifted(value, 15)
    value = value * _SECOND
    return value ^ _shifted(value, 16)


def _low(value: Tensor) -> Tensor:
    low = value & 0xFFFFFFFF
    return torch.where(low >= 1 << 31, low - (1 << 32), low).to(torch.int32)


def keep_threshold(dropout: float) -> int:
    """The smallest 24-bit draw that is kept under probability `dropout`."""
    return round(dropout * (1 << 24))


def keep_mask(seed: Tensor, rows: Tensor, columns: int, dropout: float, stream: int = OUTPUT) -> Tensor:
    """Which entries survive.

    Args:
        seed: one int64 element.
        rows: token indices, int64, shape (tokens,).
        columns: width of the masked tensor.
        dropout: probability of dropping an entry, in [0, 1).
        stream: which of the masks of one seed.

    Returns:
        Boolean tensor of shape (tokens, columns); true means kept.
    """
    seed = seed.reshape(()).to(torch.int64) ^ stream
    key = _mix(_low(seed) ^ _mix(_low(seed >> 32)))
    key = _mix(_low(rows) ^ _mix(_low(rows >> 32) ^ key))
    column = torch.arange(columns, device=rows.device, dtype=torch.int32) * _GOLDEN
    draw = _mix(column.unsqueeze(0) ^ key.unsqueeze(1))
    return _shifted(draw, 8) >= keep_threshold(dropout)
