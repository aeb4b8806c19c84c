"""The reference operations beyond 2³¹ elements, which is more than 32-bit addresses reach."""

import pytest
import torch
from torch.nn.functional import normalize

from weft.kernels import LowRankKronecker, cache_class_sums, kronecker_linear
from weft.kernels.testing import call_bottleneck

pytestmark = pytest.mark.slow

FAR = 16  # rows at the end, compared with the same rows alone


def far_rows(width):
    """More than 2³¹ values of bfloat16, zero but for the last rows."""
    x = torch.zeros(2**31 // width + FAR, width, dtype=torch.bfloat16)
    x[-FAR:] = torch.randn(FAR, width)
    assert x.numel() > 2**31
    return x


def test_the_last_rows_of_a_bottleneck_are_right():
    x = far_rows(4096)
    down, up = (torch.randn(shape).bfloat16() * 0.1 for shape in ((2, 4096, 8), (2, 8, 4096)))
    ids = torch.full((len(x),), -1)
    ids[-FAR:] = torch.arange(FAR) % 2
    with torch.no_grad():
        whole = call_bottleneck(x.unsqueeze(1), down, up, task_ids=ids)
        alone = call_bottleneck(x[-FAR:].unsqueeze(1), down, up, task_ids=ids[-FAR:])
    assert alone.any()
    assert torch.equal(whole[-FAR:], alone)
    assert not whole[: -FAR : len(x) // 7].any()


def test_the_last_rows_of_a_kronecker_map_are_right():
    x = far_rows(8192)
    factors = LowRankKronecker(
        *(torch.randn(shape).bfloat16() for shape in ((4, 4, 4), (4, 2048, 1), (4, 1, 16)))
    )
    with torch.no_grad():
        whole = kronecker_linear(x, factors.rule, left=factors.left, right=factors.right)
        alone = kronecker_linear(x[-FAR:], factors.rule, left=factors.left, right=factors.right)
    assert alone.any()
    assert torch.equal(whole[-FAR:], alone)


def test_more_than_two_billion_affinities_are_summed():
    queries, keys = (normalize(torch.randn(size, 8), dim=1) for size in (2**15 + FAR, 2**16))
    shots = 2**13
    sums = cache_class_sums(queries, keys, beta=2.0, shots=shots)
    affinities = (2.0 * (queries[-FAR:].double() @ keys.double().t() - 1)).exp()
    want = affinities.unflatten(1, (-1, shots)).sum(2)
    assert torch.allclose(sums[-FAR:].double(), want, rtol=1e-5)
