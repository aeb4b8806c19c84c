import pytest
import torch

from weft.kernels import LowRankKronecker, kron, kronecker_bottleneck, kronecker_linear, phm_weight
from weft.kernels.testing import TOLERANCE, relative_error

pytestmark = pytest.mark.usefixtures("poisoned")


class Draw:
    """Tensors that depend on the order of calls, but not on dtype or backend."""

    def __init__(self, dtype, backend, device):
        self.generator = torch.Generator().manual_seed(2)
        self.dtype, self.device, self.backend = dtype, device, backend

    def __call__(self, *shape):
        values = (torch.randn(*shape, generator=self.generator) * 0.4).to(self.dtype)
        return values.to(
            self.device, torch.float64 if self.backend == "torch" else self.dtype
        ).requires_grad_()

    def low_rank(self, d_in, d_out, n, rank):
        return LowRankKronecker(self(n, n, n), self(n, d_in // n, rank), self(n, rank, d_out // n))


def with_gradients(y, inputs, draw):
    gradient = torch.randn(y.shape, generator=draw.generator).to(y.device, y.dtype)
    return [y, *torch.autograd.grad(y, inputs, gradient)]


def compare(run, dtype, device):
    results = []
    for backend in ("triton", "torch"):
        draw = Draw(dtype, backend, device)
        results.append(run(draw, backend))
    for position, (one, other) in enumerate(zip(*results, strict=True)):
        assert relative_error(one, other) <= 2 * TOLERANCE[dtype], position
    return results[0]


@pytest.mark.parametrize("residual", ["x", "other", "none"])
@pytest.mark.parametrize("sizes", [(100, 48, 4, 1), (64, 16, 2, 3)], ids=str)
def test_the_whole_adapter_matches_the_reference(device, dtype, sizes, residual):
    d, r, n, rank = sizes

    def run(draw, backend):
        down, up = draw.low_rank(d, r, n, rank), draw.low_rank(r, d, 2, rank)
        x, down_bias, up_bias, other = draw(70, d), draw(r), draw(d), draw(70, d)
        res = {"x": x, "other": other, "none": None}[residual]
        y = kronecker_bottleneck(
            x, down, up, down_bias=down_bias, up_bias=up_bias, residual=res, scale=0.7, backend=backend
        )
        inputs = [x, *down, *up, down_bias, up_bias] + ([other] if residual == "other" else [])
        return with_gradients(y, inputs, draw)

    compare(run, dtype, device)


@pytest.mark.parametrize("plan", ["thin", "merge_right", "merge_left"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
def test_thin_orders_match(device, dtype, plan, bias):
    def run(draw, backend):
        factors, x, b = draw.low_rank(100, 60, 4, 2), draw(33, 100), draw(60)
        y = kronecker_linear(
            x, factors.rule, left=factors.left, right=factors.right, bias=b if bias else None, order=plan,
            backend=backend,
        )  # fmt: skip
        return with_gradients(y, [x, *factors] + ([b] if bias else []), draw)

    compare(run, dtype, device)


@pytest.mark.parametrize("sizes", [(2, 3, 4, 33, 65), (1, 1, 1, 1, 1)], ids=str)
def test_sums_of_products_match(device, dtype, sizes):
    terms, a, b, c, d = sizes

    def run(draw, backend):
        rule, weight = draw(terms, a, b), draw(5, terms, c, d)
        return with_gradients(phm_weight(rule, weight, backend=backend), [rule, weight], draw)

    compare(run, dtype, device)


def test_two_runs_are_bitwise_equal(device, dtype):
    def run():
        draw = Draw(dtype, "triton", device)
        down, up, x = draw.low_rank(64, 16, 4, 1), draw.low_rank(16, 64, 4, 1), draw(40, 64)
        y = kronecker_bottleneck(x, down, up, residual=x, backend="triton")
        return with_gradients(y, [x, *down, *up], draw)

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_zero_rows_launch_nothing(device):
    draw = Draw(torch.float32, "triton", device)
    down, up, x = draw.low_rank(8, 4, 2, 1), draw.low_rank(4, 8, 2, 1), draw(0, 8)
    for y in (
        kronecker_bottleneck(x, down, up, backend="triton"),
        kronecker_linear(x, down.rule, left=down.left, right=down.right, order="thin", backend="triton"),
    ):
        y.sum().backward()
    assert x.grad.shape == (0, 8)


def test_a_wide_thin_side_falls_back_to_the_library(device):
    draw = Draw(torch.float32, "triton", device)
    factors, x = draw.low_rank(300, 300, 2, 70), draw(4, 300)
    y = kronecker_linear(
        x, factors.rule, left=factors.left, right=factors.right, order="thin", backend="triton"
    )
    want = x @ phm_weight(factors.rule, left=factors.left, right=factors.right, backend="torch")
    assert relative_error(y, want) < 1e-5
    torch.testing.assert_close(kron(x, x), torch.kron(x, x))
