"""The measured cases: shapes, competing runs, a correctness check, and counts of bytes and operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import baselines
import torch
from torch import Tensor
from torch.nn.functional import normalize

from weft.kernels import (
    BottleneckWeights,
    LowRankKronecker,
    adapter_bottleneck,
    cache_logits,
    kronecker_bottleneck,
    kronecker_linear,
    route_rows,
)


@dataclass
class Case:
    """One shape: the op under ``weft`` and its rivals, all as functions without arguments."""

    suite: str
    mode: str
    shape: dict[str, int | str]
    runs: dict[str, Callable[[], Any]]
    bytes_floor: int
    flops: int
    check: Callable[[], float] | None = None
    memory: bool = False
    repeats: int = 15
    notes: dict[str, str] = field(default_factory=dict)


def _forward_backward(
    call: Callable[[], Tensor], inputs: list[Tensor], gradient: Tensor
) -> Callable[[], Any]:
    return lambda: torch.autograd.grad(call(), inputs, gradient)


def _error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def bottleneck(device: str, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Adapters of one and of many tasks, forward and with backward."""
    grid = [(8192, 768, 48, 1), (6400, 768, 48, 16)] if quick else [
        (tokens, d, r, tasks)
        for d, r in ((768, 32), (768, 96), (1024, 64), (4096, 64), (4096, 128))
        for tokens in (2048, 16384, 65536)
        for tasks in (1, 8, 64)
        if tokens * d <= 1 << 27
    ]  # fmt: skip
    for tokens, d, r, tasks in grid:
        yield from _bottleneck_cases(device, dtype, quick, tokens, d, r, tasks)


def _bottleneck_cases(
    device: str, dtype: torch.dtype, quick: bool, tokens: int, d: int, r: int, tasks: int
) -> Iterator[Case]:
    length = 64
    rows = tokens // length

    def new(*shape: int, scale: float = 0.05) -> Tensor:
        return (torch.randn(*shape, device=device) * scale).to(dtype).requires_grad_()

    x, down, up = new(rows, length, d, scale=1.0), new(tasks, d, r), new(tasks, r, d)
    down_bias, up_bias = new(tasks, r), new(tasks, d)
    gamma, beta = new(d), new(d)
    inputs = [x, down, up, down_bias, up_bias]
    gradient = torch.randn(rows, length, d, device=device).to(dtype)
    weights = BottleneckWeights(down, up, down_bias, up_bias)
    ids = torch.randint(0, tasks, (rows,), device=device) if tasks > 1 else None
    routing = None if ids is None else route_rows(ids, tasks)

    def ours(norm: bool = False) -> Tensor:
        own = replace(weights, norm_weight=gamma, norm_bias=beta) if norm else weights
        return adapter_bottleneck(x, own, routing, residual=x, dropout=0.1 if norm else 0.0)

    def check() -> float:
        wide = [t.detach().double() for t in inputs]
        some = torch.zeros(rows, dtype=torch.int64, device=device) if ids is None else ids
        return _error(ours().detach(), baselines.loop(wide[0], some, *wide[1:]))

    first = [t[0] for t in inputs[1:]]
    rivals: dict[str, Callable[[], Tensor]] = {}
    if ids is None:
        rivals["eager"] = lambda: baselines.eager(x, *first)
        if device == "cuda":
            rivals["compile"] = torch.compile(lambda: baselines.eager(x, *first))
    else:
        rivals["loop"] = lambda: baselines.loop(x, ids, *inputs[1:])
        if not quick:
            rivals["grouped_mm"] = lambda: baselines.sorted_grouped(x, ids, *inputs[1:])
    shape = {"tokens": tokens, "d": d, "r": r, "tasks": tasks}
    runs = {"weft": ours, **rivals}
    size = x.element_size()
    yield Case("bottleneck", "forward", shape, {n: _no_grad(f) for n, f in runs.items()},
               2 * tokens * d * size, 4 * tokens * d * r, check)  # fmt: skip
    both = {n: _forward_backward(f, inputs, gradient) for n, f in runs.items()}
    if ids is not None:
        single = [t.detach()[:1].clone().requires_grad_() for t in inputs[1:]]
        both["one-task"] = _forward_backward(
            lambda: adapter_bottleneck(x, BottleneckWeights(*single), residual=x),
            [x, *single],
            gradient,
        )
    yield Case("bottleneck", "forward+backward", shape, both, 6 * tokens * d * size, 12 * tokens * d * r)
    if ids is None and not quick:
        normed = {
            "weft": _forward_backward(lambda: ours(True), [*inputs, gamma, beta], gradient),
            "eager": _forward_backward(
                lambda: baselines.eager_norm_dropout(x, *first, gamma, beta),
                [*inputs, gamma, beta],
                gradient,
            ),
        }
        yield Case("bottleneck", "norm+dropout forward+backward", shape, normed, 7 * tokens * d * size,
                   12 * tokens * d * r)  # fmt: skip


def _no_grad(call: Callable[[], Tensor]) -> Callable[[], Any]:
    def run() -> Tensor:
        with torch.no_grad():
            return call()

    return run


def kronecker(device: str, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """A Compacter adapter, and a square low-rank map."""
    for tokens, d, r in [(8192, 768, 48)] if quick else [(2048, 768, 48), (8192, 768, 48), (65536, 1024, 64)]:
        yield from _compacter_cases(device, dtype, tokens, d, r)
    yield from _square_cases(device, dtype, *((256, 4096) if quick else (16384, 4096)))


def _factors(device: str, dtype: torch.dtype, d_in: int, d_out: int, n: int) -> LowRankKronecker:
    shapes = ((n, n, n), (n, d_in // n, 1), (n, 1, d_out // n))
    return LowRankKronecker(*(_new(device, dtype, *shape) for shape in shapes))


def _new(device: str, dtype: torch.dtype, *shape: int, scale: float = 0.3) -> Tensor:
    return (torch.randn(*shape, device=device) * scale).to(dtype).requires_grad_()


def _compacter_cases(device: str, dtype: torch.dtype, tokens: int, d: int, r: int) -> Iterator[Case]:
    down, up, x = (
        _factors(device, dtype, d, r, 4),
        _factors(device, dtype, r, d, 4),
        _new(device, dtype, tokens, d, scale=1.0),
    )
    down_bias, up_bias = _new(device, dtype, r), _new(device, dtype, d)
    inputs = [x, *down, *up, down_bias, up_bias]
    gradient = torch.randn(tokens, d, device=device).to(dtype)

    def ours() -> Tensor:
        return kronecker_bottleneck(x, down, up, down_bias=down_bias, up_bias=up_bias, residual=x)

    def dense() -> Tensor:
        return baselines.eager(x, baselines.phm_matrix(*down), baselines.phm_matrix(*up), down_bias, up_bias)

    runs = {"weft": ours, "materialised": dense}
    flops = 2 * tokens * 8 * (d + r)
    size = x.element_size()
    yield Case("compacter", "forward+backward", {"tokens": tokens, "d": d, "r": r},
               {n: _forward_backward(f, inputs, gradient) for n, f in runs.items()},
               6 * tokens * d * size, 3 * flops,
               lambda: _error(ours().detach(), dense().detach().double()), repeats=15)  # fmt: skip


def _square_cases(device: str, dtype: torch.dtype, tokens: int, d: int) -> Iterator[Case]:
    square, x = _factors(device, dtype, d, d, 4), _new(device, dtype, tokens, d, scale=1.0)
    inputs, gradient = [x, *square], torch.randn(tokens, d, device=device).to(dtype)

    def ours_square() -> Tensor:
        return kronecker_linear(x, square.rule, left=square.left, right=square.right)

    def dense_square() -> Tensor:
        return x @ baselines.phm_matrix(*square)

    runs = {"weft": ours_square, "materialised": dense_square}
    yield Case("kronecker_linear", "forward+backward", {"tokens": tokens, "d": d},
               {n: _forward_backward(f, inputs, gradient) for n, f in runs.items()},
               6 * tokens * d * x.element_size(), 3 * 2 * tokens * 4 * 2 * d,
               lambda: _error(ours_square().detach(), dense_square().detach().double()),
               repeats=3)  # fmt: skip


def cache(device: str, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Class sums of a 16-shot cache, and a grid of sharpness values."""
    sizes = [(4096, 16000, 1000, 512)] if quick else [
        (256, 16000, 1000, 512), (4096, 16000, 1000, 512), (4096, 16000, 1000, 1024),
        (50000, 16000, 1000, 512),
    ]  # fmt: skip
    for count, keys_count, classes, d in sizes:
        yield from _cache_cases(device, dtype, quick, count, keys_count, classes, d)


def _cache_cases(
    device: str, dtype: torch.dtype, quick: bool, count: int, keys_count: int, classes: int, d: int
) -> Iterator[Case]:
    queries = normalize(torch.randn(count, d, device=device), dim=1).to(dtype)
    keys = normalize(torch.randn(keys_count, d, device=device), dim=1).to(dtype)
    init = torch.randn(count, classes, device=device)
    values = torch.eye(classes, device=device).repeat_interleave(keys_count // classes, 0).to(dtype)

    def ours() -> Tensor:
        return cache_logits(queries, keys, beta=5.5, alpha=1.2, shots=keys_count // classes, init=init)

    def eager() -> Tensor:
        return baselines.cache_eager(queries, keys, values, init, 1.2, 5.5)

    shape = {"queries": count, "keys": keys_count, "classes": classes, "d": d}
    moved = (count * d + keys_count * d) * queries.element_size() + 2 * count * classes * 4
    yield Case("cache", "forward", shape, {"weft": ours, "eager": eager}, moved, 2 * count * keys_count * d,
               lambda: _error(ours()[:64], baselines.cache_eager(
                   queries[:64].double(), keys.double(), values.double(), init[:64].double(), 1.2, 5.5)),
               memory=True, repeats=1 if quick else 5)  # fmt: skip
    if quick or count != 4096:
        return
    grid = torch.linspace(0.1, 7, 50, device=device)

    def ours_grid() -> Tensor:
        return cache_logits(queries[:1024], keys, beta=grid, shots=keys_count // classes)

    def eager_grid() -> list[Tensor]:
        return [
            baselines.cache_eager(queries[:1024], keys, values, init[:1024], 1.0, float(beta))
            for beta in grid
        ]

    yield Case("cache grid", "forward", {"queries": 1024, "keys": keys_count, "betas": 50},
               {"weft": ours_grid, "eager": eager_grid}, 50 * 1024 * classes * 4,
               2 * 1024 * keys_count * d)  # fmt: skip


SUITES = {"bottleneck": bottleneck, "kronecker": kronecker, "cache": cache}
