import pytest
import torch

from weft.kernels import route_rows
from weft.kernels.bottleneck.activations import ACTIVATIONS
from weft.kernels.testing import TOLERANCE, call_bottleneck, relative_error

DOWN_SLOTS, UP_SLOTS = [0, 1, 1, 0], [2, 1, 0, 0]
pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    # On the device exp overflows to infinity silently, and the sigmoid of it is right; numpy says so aloud.
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
]


def call(
    dtype, backend, device, ids, *, d=64, d_out=None, r=16, length=7, scale=(4, 1), residual="x", norm=False,
    act="gelu_tanh", offsets=None, **dropouts,
):  # fmt: skip
    """Output and all gradients of one call, on the same values whatever the dtype and backend."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        values = torch.randn(*shape, generator=generator) * 0.3
        return (
            values.to(dtype if dtype != torch.float64 else torch.float32).to(device, dtype).requires_grad_()
        )

    d_out = d if d_out is None or residual == "x" else d_out
    rows = len(ids) if ids is not None else 5
    x, down, up = draw(rows, length, d), draw(2, d, r), draw(3, r, d_out)
    options = {"down_bias": draw(2, r), "up_bias": draw(3, d_out)}
    inputs = [x, down, up, *options.values()]
    if scale is not None:
        options["scale"] = draw(*scale) if scale[-1] != "d" else draw(scale[0], d_out)
        inputs.append(options["scale"])
    if norm:
        options |= {"norm_weight": draw(d), "norm_bias": draw(d)}
        inputs += [options["norm_weight"], options["norm_bias"]]
    if residual == "other":
        options["residual"] = draw(rows, length, d_out)
        inputs.append(options["residual"])
    elif residual == "x":
        options["residual"] = x
    if ids is not None:
        options["task_ids"] = torch.tensor(ids, device=device)
    if offsets is not None:
        options["offsets"] = torch.tensor(offsets, device=device)
    if ids is not None or offsets is not None:
        options["down_slots"] = torch.tensor(DOWN_SLOTS, device=device)
        options["up_slots"] = torch.tensor(UP_SLOTS, device=device)
    y = call_bottleneck(x, down, up, activation=act, seed=3, backend=backend, **dropouts, **options)
    gradient = torch.randn(y.shape, generator=generator).to(device, y.dtype)
    return [y, *torch.autograd.grad(y, inputs, gradient, materialize_grads=True)]


def compare(dtype, device, *args, **kwargs):
    got = call(dtype, "triton", device, *args, **kwargs)
    want = call(torch.float64, "torch", device, *args, **kwargs)
    for position, (one, other) in enumerate(zip(got, want, strict=True)):
        # A handful of sums over everything, such as a scale's gradient, may cancel and lose digits.
        slack = 1 if dtype == torch.float32 else (8 if other.numel() <= 4 else 3)
        limit = TOLERANCE[dtype] * slack
        if other.any():
            assert relative_error(one, other) <= limit, position
        else:
            assert not one.any(), position


ROUTINGS = {
    "mixed": [3, 0, -1, 1, 0, 2],
    "identity": [-1, -1],
    "one-row": [2],
    "one-task": [1, 1, 1],
    "unrouted": None,
}


@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_routing_matches_the_reference(device, dtype, routing):
    scale = (1, 1) if routing == "unrouted" else (4, 1)
    compare(dtype, device, ROUTINGS[routing], scale=scale)


@pytest.mark.parametrize("sizes", [(96, 100, 24), (100, 64, 48), (64, 96, 3)], ids=str)
def test_masked_sizes_match(device, dtype, sizes):
    d, d_out, r = sizes
    compare(dtype, device, [1, -1, 3, 0], d=d, d_out=d_out, r=r, residual="other", scale=(4, "d"))


def test_norm_and_dropout_match(device, dtype):
    compare(dtype, device, [3, 0, -1, 1], d=96, norm=True, dropout=0.3)


@pytest.mark.parametrize("r", [16, 130], ids=["fused", "two-steps"])
def test_dropout_of_input_and_hidden_values_matches(device, dtype, r):
    compare(dtype, device, [3, 0, -1, 1], d=96, r=r, input_dropout=0.2, hidden_dropout=0.3, dropout=0.1)


def test_dropout_of_a_normalised_input_matches(device):
    compare(torch.float32, device, [3, 0, -1, 1], d=96, norm=True, input_dropout=0.2, hidden_dropout=0.3)


def test_norm_without_residual_and_scale_matches(device, dtype):
    compare(dtype, device, [0, 2], d=100, norm=True, residual="none", scale=None)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_match(device, act):
    compare(torch.float32, device, [0, 2, 1], act=act)


def test_offsets_with_an_empty_task_match(device):
    compare(torch.float32, device, None, offsets=[2, 2, 3, 5])


def test_long_rows_span_many_tiles(device):
    compare(torch.float32, device, [0, 3], length=150)


def test_two_runs_are_bitwise_equal(device, dtype):
    first, second = (call(dtype, "triton", device, [3, 0, -1, 1], norm=True, dropout=0.2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_neighbouring_memory_stays_untouched(device):
    store = torch.full((12, 7, 64), 5.0, device=device)
    x = store[3:9]
    before = store.clone()
    down, up = torch.randn(1, 64, 16, device=device), torch.randn(1, 16, 64, device=device)
    call_bottleneck(x, down, up, residual=x, backend="triton")
    assert torch.equal(store, before)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_a_wide_bottleneck_takes_two_steps(device, dtype, norm):
    compare(dtype, device, [3, 0, -1, 1], r=160, norm=norm, dropout=0.3)


def test_a_wide_bottleneck_scales_channels_and_adds_another_residual(device):
    compare(
        torch.float32,
        device,
        [1, -1, 3],
        d=100,
        d_out=72,
        r=130,
        residual="other",
        scale=(4, "d"),
        act="silu",
    )


def test_the_registered_op_passes_opcheck_with_kernels(device):
    x = torch.randn(4, 3, 8, device=device, requires_grad=True)
    down = torch.randn(2, 8, 4, device=device, requires_grad=True)
    up = torch.randn(2, 4, 8, device=device, requires_grad=True)
    ids = torch.tensor([0, 1, -1, 1], device=device)
    routing = route_rows(ids, 2)
    arguments = (
        x,
        down,
        up,
        *[None] * 6,
        *routing,
        *[None] * 3,
        0.7,
        1e-5,
        *[0.0] * 3,
        "gelu",
        True,
        True,
        "triton",
    )
    torch.library.opcheck(torch.ops.weft.adapter_bottleneck.default, arguments)


def test_an_expanded_gradient_is_read_correctly(device):
    x = torch.randn(4, 3, 16, device=device, requires_grad=True)
    down, up = torch.randn(1, 16, 4, device=device), torch.randn(1, 4, 16, device=device)
    y = call_bottleneck(x, down, up, backend="triton")
    expanded = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(expanded, torch.autograd.grad(y, x, torch.ones_like(y))[0])


def test_zero_rows_launch_nothing(device):
    x = torch.zeros(0, 3, 16, device=device, requires_grad=True)
    down, up = torch.randn(1, 16, 4, device=device), torch.randn(1, 4, 16, device=device)
    call_bottleneck(x, down, up, residual=x, backend="triton").sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.slow
def test_a_large_case_matches(device):
    compare(torch.float32, device, [0, 1, 2, 3, -1, 0, 2, 2], d=768, r=96, length=64, norm=True)
