import pytest
import torch

from weft.kernels import LowRankKronecker, kron, kronecker_bottleneck, kronecker_linear, phm_weight
from weft.kernels.bottleneck.activations import ACTIVATIONS
from weft.kernels.errors import DoubleBackwardError
from weft.kernels.kronecker.orders import Shape, choose_order, orders
from weft.kernels.testing import TOLERANCE, activation, assert_all_close, naive_phm, relative_error

LOW_RANK_PLANS = ("materialise", "merge_right", "merge_left", "thin", "thin_blocks")
FULL_PLANS = ("materialise", "right_first", "left_first")


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def low_rank(d_in, d_out, n=2, rank=1, dtype=torch.float64):
    return LowRankKronecker(
        draw(n, n, n, dtype=dtype),
        draw(n, d_in // n, rank, dtype=dtype),
        draw(n, rank, d_out // n, dtype=dtype),
    )


def dense(factors):
    return naive_phm(factors.rule, factors.left @ factors.right)


@pytest.mark.parametrize("shapes", [((3, 4), (2, 5)), ((1, 1), (3, 3)), ((4, 1), (1, 7))], ids=str)
def test_kron_equals_torch_kron(shapes):
    a, b = draw(*shapes[0]), draw(*shapes[1])
    assert torch.equal(kron(a, b), torch.kron(a, b))
    assert torch.autograd.gradcheck(kron, (a, b))


def test_kron_broadcasts_leading_dimensions():
    a, b = draw(5, 1, 2, 3), draw(4, 3, 2)
    got = kron(a, b)
    assert got.shape == (5, 4, 6, 6)
    torch.testing.assert_close(got[3, 2], torch.kron(a[3, 0], b[2]))
    assert torch.autograd.gradcheck(kron, (a, b))


def test_phm_weight_sums_the_terms_in_both_forms():
    rule, left, right = draw(3, 2, 4), draw(3, 5, 2), draw(3, 2, 6)
    want = naive_phm(rule, left @ right)
    torch.testing.assert_close(phm_weight(rule, left @ right), want)
    torch.testing.assert_close(phm_weight(rule, left=left, right=right), want)
    assert torch.autograd.gradcheck(lambda r, a, b: phm_weight(r, left=a, right=b), (rule, left, right))


def test_one_rule_serves_many_slots_and_sums_their_gradients():
    rule, weight = draw(2, 2, 2), draw(5, 2, 3, 4)
    got = phm_weight(rule, weight)
    want = torch.stack([naive_phm(rule, slot) for slot in weight])
    torch.testing.assert_close(got, want)
    g = torch.randn_like(got)
    torch.testing.assert_close(
        torch.autograd.grad(got, (rule, weight), g), torch.autograd.grad(want, (rule, weight), g)
    )


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("plan", LOW_RANK_PLANS)
def test_every_low_rank_order_gives_the_same_map(plan, bias):
    torch.manual_seed(0)
    rule, left, right = draw(3, 4, 2), draw(3, 5, 2), draw(3, 2, 7)
    x, b = draw(2, 3, 20), draw(14) if bias else None
    inputs = [x, rule, left, right] + ([b] if bias else [])
    got = kronecker_linear(x, rule, left=left, right=right, bias=b, order=plan)
    want = x @ naive_phm(rule, left @ right) + (b if bias else 0)
    g = torch.randn_like(want)
    assert_all_close(
        [got, *torch.autograd.grad(got, inputs, g)],
        [want, *torch.autograd.grad(want, inputs, g)],
        torch.float64,
    )


@pytest.mark.parametrize("plan", FULL_PLANS)
def test_every_full_order_gives_the_same_map(plan):
    rule, weight, x, b = draw(2, 4, 3), draw(2, 5, 7), draw(6, 20), draw(21)
    got = kronecker_linear(x, rule, weight=weight, bias=b, order=plan)
    want = x @ naive_phm(rule, weight) + b
    g = torch.randn_like(want)
    assert_all_close(
        [got, *torch.autograd.grad(got, (x, rule, weight, b), g)],
        [want, *torch.autograd.grad(want, (x, rule, weight, b), g)],
        torch.float64,
    )


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("residual", ["x", "other", "none"])
def test_the_whole_adapter_equals_its_dense_form(residual, act):
    torch.manual_seed(1)
    down, up = low_rank(12, 8, n=4, rank=2), low_rank(8, 12, n=2)
    x, down_bias, up_bias, other = draw(3, 5, 12), draw(8), draw(12), draw(3, 5, 12)
    res = {"x": x, "other": other, "none": None}[residual]
    inputs = [x, *down, *up, down_bias, up_bias] + ([other] if residual == "other" else [])
    got = kronecker_bottleneck(
        x, down, up, down_bias=down_bias, up_bias=up_bias, residual=res, scale=0.7, activation=act
    )
    want = 0.7 * (activation(act, x @ dense(down) + down_bias) @ dense(up) + up_bias)
    want = want if res is None else want + res
    g = torch.randn_like(want)
    assert_all_close(
        [got, *torch.autograd.grad(got, inputs, g)],
        [want, *torch.autograd.grad(want, inputs, g)],
        torch.float64,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_adapter_keeps_its_tolerance_in_lower_precision(dtype):
    torch.manual_seed(2)
    down, up = low_rank(64, 16, n=4, dtype=dtype), low_rank(16, 64, n=4, dtype=dtype)
    x = (torch.randn(9, 64) * 0.3).to(dtype)
    got = kronecker_bottleneck(x, down, up, residual=x)
    down, up = (LowRankKronecker(*(f.detach().double() for f in part)) for part in (down, up))
    want = x.double() + activation("gelu_tanh", x.double() @ dense(down)) @ dense(up)
    assert relative_error(got, want) <= 2 * TOLERANCE[dtype]


def test_adapter_without_biases_and_with_a_wide_residual():
    down, up = low_rank(8, 4, dtype=torch.bfloat16), low_rank(4, 8, dtype=torch.bfloat16)
    x, residual = torch.randn(3, 8, dtype=torch.bfloat16), torch.randn(3, 8, requires_grad=True)
    y = kronecker_bottleneck(x, down, up, residual=residual)
    assert y.dtype == torch.float32
    y.sum().backward()
    assert torch.equal(residual.grad, torch.ones(3, 8))


def test_autocast_casts_all_but_the_residual():
    down, up = low_rank(8, 4, dtype=torch.float32), low_rank(4, 8, dtype=torch.float32)
    x = torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            kronecker_linear(x, down.rule, left=down.left, right=down.right, order="thin").dtype
            == torch.bfloat16
        )
        y = kronecker_bottleneck(x, down, up, residual=x)
        assert phm_weight(down.rule, draw(2, 3, 3, dtype=torch.float32)).dtype == torch.float32
    assert y.dtype == torch.float32
    y.sum().backward()
    assert x.grad.dtype == torch.float32


def test_registrations_pass_opcheck():
    ops = torch.ops.weft

    def f32(*shape):
        return draw(*shape, dtype=torch.float32)

    torch.library.opcheck(ops.kronecker_sum.default, (f32(2, 3, 2, 2), f32(2, 3, 4, 5), "auto"))
    chain = (f32(7, 8), f32(4, 3), f32(6, 9), f32(3, 5), f32(15), "auto")
    torch.library.opcheck(ops.kronecker_chain.default, chain)
    torch.library.opcheck(ops.kronecker_chain.default, (chain[0], None, f32(8, 9), None, f32(9), "auto"))
    adapter = (f32(5, 8), f32(4, 2), f32(4, 6), f32(6, 4), f32(2, 4), f32(6), None, f32(5, 8))
    torch.library.opcheck(ops.kronecker_bottleneck.default, (*adapter, 0.5, "relu", False, True, "auto"))


def test_whole_maps_compile_in_one_graph():
    down, up = low_rank(8, 4, dtype=torch.float32), low_rank(4, 8, dtype=torch.float32)
    weight = draw(2, 4, 4, dtype=torch.float32)

    def step(x):
        y = kronecker_bottleneck(x, down, up, residual=x)
        y = kronecker_linear(y, down.rule, left=down.left, right=down.right, order="thin")
        return kronecker_linear(x, down.rule, weight=weight).sum() + y.sum()

    x = torch.randn(5, 8, requires_grad=True)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x), torch.autograd.grad(step(x), x))


@pytest.mark.parametrize("name", ["kron", "linear", "adapter"])
def test_double_backward_raises(name):
    x, down, up = draw(3, 8), low_rank(8, 4), low_rank(4, 8)
    y = {
        "kron": lambda: kron(x, x),
        "linear": lambda: kronecker_linear(x, down.rule, left=down.left, right=down.right, order="thin"),
        "adapter": lambda: kronecker_bottleneck(x, down, up),
    }[name]()
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(DoubleBackwardError, match="first derivative only"):
        gradient.sum().backward()


def test_zero_rows_and_stride_zero_gradients_work():
    down, up = low_rank(8, 4), low_rank(4, 8)
    x = draw(0, 8)
    kronecker_bottleneck(x, down, up).sum().backward()
    assert x.grad.shape == (0, 8)
    x = draw(3, 8)
    bias = draw(8)
    for y in (
        kronecker_bottleneck(x, down, up, up_bias=bias),
        kronecker_linear(x, down.rule, left=down.left, right=down.right),
    ):
        expanded = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
        torch.testing.assert_close(expanded, torch.autograd.grad(y, x, torch.ones_like(y))[0])


def test_costs_of_orders_are_exact_and_shapes_choose():
    compacter = Shape(4, 4, 4, 192, 12, 1)
    assert choose_order(compacter).name == "merge_right"
    assert choose_order(Shape(4, 4, 4, 12, 192, 1)).name == "merge_left"
    assert choose_order(Shape(4, 4, 4, 1024, 1024, 1)).name in ("thin", "thin_blocks")
    assert choose_order(Shape(4, 4, 4, 1024, 1024, 1024)).name == "materialise"
    assert choose_order(Shape(4, 4, 4, 192, 12, None)).name == "materialise"
    assert choose_order(Shape(1, 64, 64, 64, 64, None)).name != "materialise"
    by_name = {order.name: order for order in orders(compacter)}
    assert by_name["materialise"].flops_per_token == 2 * 768 * 48
    assert by_name["merge_right"].flops_per_token == 2 * 4 * 768 + 2 * 16 * 48
    assert by_name["thin"].flops_per_token == 2 * 4 * (768 + 48) + 2 * 16 * 16
    assert compacter.d_in == 768
    assert compacter.d_out == 48
