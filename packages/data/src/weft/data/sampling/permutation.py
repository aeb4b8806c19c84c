"""A keyed permutation of 0..n-1 that needs no memory: any position can be asked for directly.

A generalised Feistel network over a grid of about sqrt(n) by sqrt(n) cells, walked on where a value falls
outside n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Four rows or four hundred
million cost the same, so a sampler can resume anywhere without replaying anything.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import InvalidArgumentError

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT = (np.uint64(30), np.uint64(27), np.uint64(31))


def permute(positions: NDArray[np.int64], size: int, key: tuple[object, ...]) -> NDArray[np.int64]:
    """Return where each position goes under the permutation of 0..size-1 that belongs to `key`.

    Args:
        positions: Any shape, values in 0..size-1.
        size: Length of the permuted range, at least 1.
        key: Values whose text identifies the permutation, such as (seed, task, pass).

    Returns:
        Same shape, int64.

    Raises:
        InvalidArgumentError: If a position lies outside 0..size-1.

    >>> sorted(permute(np.arange(5), 5, (0, "vqa")).tolist())
    [0, 1, 2, 3, 4]
    """
    positions = np.asarray(positions, dtype=np.int64)
    if positions.size and (positions.min() < 0 or positions.max() >= size):
        raise InvalidArgumentError(f"`positions` must lie in 0..{size - 1}, but reach {positions.max()}.")
    left_size = max(1, math.isqrt(size - 1) + 1)
    right_size = -(-size // left_size)
    keys = _round_keys(key)
    values = _feistel(positions, left_size, right_size, keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], left_size, right_size, keys)
    return values


def _round_keys(key: tuple[object, ...]) -> NDArray[np.uint64]:
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _feistel(
    values: NDArray[np.int64], left_size: int, right_size: int, keys: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Permute 0..left_size*right_size-1: each half in turn is shifted by a hash of the other."""
    a, b = np.uint64(left_size), np.uint64(right_size)
    left, right = np.divmod(values.astype(np.uint64), b)
    for number in range(0, _ROUNDS, 2):
        left = (left + _mix(right + keys[number]) % a) % a
        right = (right + _mix(left + keys[number + 1]) % b) % b
    return (left * b + right).astype(np.int64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 finaliser (Steele, Lea, Flood 2014); arithmetic is modulo 2^64."""
    values = values + _GOLDEN
    values = (values ^ (values >> _SHIFT[0])) * _MIX_1
    values = (values ^ (values >> _SHIFT[1])) * _MIX_2
    return values ^ (values >> _SHIFT[2])
