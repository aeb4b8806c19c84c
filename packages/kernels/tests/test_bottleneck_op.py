import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from weft.kernels import BottleneckWeights, adapter_bottleneck, route_rows
from weft.kernels.bottleneck import reference
from weft.kernels.errors import DoubleBackwardError
from weft.kernels.testing import call_bottleneck


def parts(tasks=3, d=8, r=4):
    torch.manual_seed(0)
    return (
        torch.randn(4, 3, d, requires_grad=True),
        torch.randn(tasks, d, r, requires_grad=True),
        torch.randn(tasks, r, d, requires_grad=True),
    )


@pytest.mark.parametrize("add_input", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_opcheck_accepts_the_registration(full, add_input):
    x, down, up = parts()
    extras = [None] * 12
    if full:
        residual = None if add_input else torch.randn(4, 3, 8, requires_grad=True)
        extras = [
            torch.randn(3, 4, requires_grad=True), torch.randn(3, 8, requires_grad=True), residual,
            torch.randn(3, 8, requires_grad=True), torch.randn(8, requires_grad=True),
            torch.randn(8, requires_grad=True), *route_rows(torch.tensor([0, 2, -1, 1]), 3),
            torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0]), torch.tensor([5]),
        ]  # fmt: skip
    arguments = (
        x,
        down,
        up,
        *extras,
        0.7,
        1e-5,
        *([0.1 if full else 0.0] * 3),
        "gelu",
        add_input,
        True,
        "auto",
    )
    torch.library.opcheck(torch.ops.weft.adapter_bottleneck.default, arguments)


def test_one_compiled_graph_serves_every_assignment():
    x, down, up = parts()

    def step(x, down, up, ids):
        return call_bottleneck(x, down, up, task_ids=ids, residual=x, dropout=0.1, seed=3).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for ids in ([0, 1, 2, 1], [2, 2, -1, 0], [0, 0, 0, 0]):
            ids = torch.tensor(ids)
            got = torch.autograd.grad(compiled(x, down, up, ids), (x, down, up))
            want = torch.autograd.grad(step(x, down, up, ids), (x, down, up))
            torch.testing.assert_close(got, want)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, on first use
def test_inductor_compiles_the_call_whole():
    x, down, up = parts()
    compiled = torch.compile(lambda x: call_bottleneck(x, down, up, residual=x), fullgraph=True)
    torch.testing.assert_close(compiled(x), call_bottleneck(x, down, up, residual=x))


def test_autocast_computes_in_its_dtype_and_keeps_the_residual_stream():
    x, down, up = parts()
    with torch.autocast("cpu", torch.bfloat16):
        delta = call_bottleneck(x, down, up)
        y = call_bottleneck(x, down, up, residual=x)
    assert delta.dtype == torch.bfloat16
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x + delta)
    y.sum().backward()
    assert x.grad.dtype == down.grad.dtype == torch.float32


def test_autocast_leaves_double_precision_alone():
    x, down, up = (t.double() for t in parts())
    with torch.autocast("cpu", torch.bfloat16):
        assert call_bottleneck(x, down, up).dtype == torch.float64


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_draws_the_same_dropout_again(reentrant):
    x, down, up = parts()

    def call(x):
        return call_bottleneck(x, down, up, residual=x, dropout=0.5)

    torch.manual_seed(1)
    want = torch.autograd.grad(call(x).square().sum(), (x, down))
    torch.manual_seed(1)
    checkpointed = checkpoint(call, x, use_reentrant=reentrant).square().sum()
    if reentrant:
        checkpointed.backward()
        got = (x.grad, down.grad)
    else:
        got = torch.autograd.grad(checkpointed, (x, down))
    torch.testing.assert_close(got, want)


def test_double_backward_raises():
    x, down, up = parts()
    (gradient,) = torch.autograd.grad(call_bottleneck(x, down, up).square().sum(), x, create_graph=True)
    with pytest.raises(DoubleBackwardError, match="must not be differentiated"):
        gradient.sum().backward()


def test_flops_are_counted():
    x, down, up = parts(tasks=1)
    with FlopCounterMode(display=False) as counter:
        call_bottleneck(x, down, up).sum().backward()
    forward = 2 * 12 * 2 * 8 * 4
    assert counter.get_total_flops() == 3 * forward


def test_inference_keeps_nothing_for_a_backward():
    x, down, up = parts()
    with torch.no_grad():
        _, z, statistics = torch.ops.weft.adapter_bottleneck(
            x,
            down,
            up,
            *([None] * 12),
            1.0,
            1e-5,
            0.0,
            0.0,
            0.0,
            "relu",
            True,
            torch.is_grad_enabled(),
            "auto",
        )
    assert z.numel() == statistics.numel() == 0


def test_frozen_weights_get_no_gradient():
    x, down, up = parts()
    y = call_bottleneck(x, down.detach(), up.detach(), residual=x)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_meta_tensors_flow_through():
    x, down, up = (t.detach().to("meta") for t in parts())
    ids = torch.zeros(4, dtype=torch.int64, device="meta")
    assert call_bottleneck(x, down, up, task_ids=ids).shape == x.shape


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("dropout", [0.0, 0.5], ids=["all kept", "dropout"])
def test_beside_its_inputs_a_call_keeps_z_the_statistics_of_a_norm_and_a_seed(norm, dropout):
    x, down, up = parts()
    options = {"norm_weight": torch.ones(8), "norm_bias": torch.ones(8)} if norm else {}
    rows = route_rows(torch.tensor([0, 2, -1, 1]), 3)
    inputs = {t.data_ptr() for t in (x, down, up, *rows, *options.values())}
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t}) or t, lambda t: t):
        adapter_bottleneck(
            x, BottleneckWeights(down, up, **options), rows, residual=x, input_dropout=dropout,
            hidden_dropout=dropout, dropout=dropout,
        )  # fmt: skip
    own = sum(t.nbytes for place, t in kept.items() if place not in inputs)
    tokens = x.shape[0] * x.shape[1]
    assert own == tokens * down.shape[2] * 4 + (2 * tokens * 4 if norm else 0) + (8 if dropout else 0)


def test_lora_of_one_task_is_two_products_of_torch_with_the_bits_of_the_op(monkeypatch):
    x, residual = torch.randn(3, 5, 16), torch.randn(3, 5, 12).requires_grad_()
    weights = BottleneckWeights(
        torch.randn(1, 16, 4).requires_grad_(), torch.randn(1, 4, 12).requires_grad_()
    )
    inputs = [x.requires_grad_(), weights.down, weights.up, residual]
    gradient = torch.randn(3, 5, 12)

    def call(routing):
        y = adapter_bottleneck(x, weights, routing, residual=residual, scale=0.5, activation="identity")
        return [y, *torch.autograd.grad(y, inputs, gradient)]

    routed = call(route_rows(torch.zeros(3, dtype=torch.int64), 1))
    monkeypatch.setattr(reference, "forward", None)  # the op cannot run
    assert all(torch.equal(one, other) for one, other in zip(call(None), routed, strict=True))
