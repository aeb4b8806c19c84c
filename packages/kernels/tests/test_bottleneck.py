import pytest
import torch

from weft.kernels.bottleneck import reference, segments
from weft.kernels.bottleneck.activations import ACTIVATIONS
from weft.kernels.bottleneck.tiles import tile_rows
from weft.kernels.testing import (
    TOLERANCE,
    assert_all_close,
    call_bottleneck,
    naive_bottleneck,
    relative_error,
)

IDS = [3, 0, -1, 1, 0, 2, 3]
DOWN_SLOTS, UP_SLOTS = [0, 1, 1, 0], [2, 1, 0, 0]


@pytest.fixture(params=["segments", "tiles"])
def rows(request, monkeypatch):
    """Both ways of visiting rows: runs read on the host, and tiles that need no host."""
    if request.param == "tiles":
        monkeypatch.setattr(reference, "rows_of", tile_rows)
    return request.param


def tensors(dtype=torch.float64, rows=7, length=5, d=12, r=4, d_out=12, scale=(4, 1)):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()

    return {
        "x": draw(rows, length, d),
        "down": draw(2, d, r),
        "up": draw(3, r, d_out),
        "down_bias": draw(2, r),
        "up_bias": draw(3, d_out),
        "scale": draw(*scale),
        "norm_weight": draw(d),
        "norm_bias": draw(d),
    }


def both(inputs, ids=IDS, residual="x", act="gelu_tanh", **options):
    """Output and gradients of the op and of the oracle."""
    x = inputs["x"]
    res = {"x": x, "none": None}.get(residual, residual)
    others = {k: v for k, v in inputs.items() if k not in ("x", "down", "up")}
    got = call_bottleneck(
        x, inputs["down"], inputs["up"], task_ids=torch.tensor(ids), residual=res, activation=act,
        down_slots=torch.tensor(DOWN_SLOTS), up_slots=torch.tensor(UP_SLOTS), **others, **options,
    )  # fmt: skip
    wide = {k: v.detach().double().requires_grad_() for k, v in inputs.items()}
    others = {k: v for k, v in wide.items() if k not in ("x", "down", "up")}
    res = wide["x"] if residual == "x" else None
    want = naive_bottleneck(
        wide["x"], wide["down"], wide["up"], ids, residual=res, act=act,
        down_slots=DOWN_SLOTS, up_slots=UP_SLOTS, **others,
    )  # fmt: skip
    gradient = torch.randn(want.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (
        [
            got,
            *torch.autograd.grad(got, list(inputs.values()), gradient.to(got.dtype), materialize_grads=True),
        ],
        [want, *torch.autograd.grad(want, list(wide.values()), gradient, materialize_grads=True)],
    )


@pytest.mark.parametrize("scale", [(4, 1), (4, 12), (1, 1)], ids=["per-task", "per-channel", "shared"])
@pytest.mark.parametrize("residual", ["x", "none"])
@pytest.mark.parametrize("large", [0, 2**20], ids=["large weights", "small weights"])
@pytest.mark.usefixtures("rows")
def test_output_and_gradients_match_a_loop_over_rows(monkeypatch, large, residual, scale):
    monkeypatch.setattr(reference, "LARGE", large)
    got, want = both(tensors(scale=scale), residual=residual)
    assert_all_close(got, want, torch.float64)


@pytest.mark.parametrize("residual", ["x", "none"])
@pytest.mark.parametrize(
    "without",
    [(), ("scale",), ("norm_weight", "norm_bias"), ("norm_weight", "norm_bias", "scale")],
    ids=["all", "no scale", "no norm", "plain"],
)
@pytest.mark.parametrize("large", [0, 2**20], ids=["large weights", "small weights"])
def test_long_rows_are_multiplied_where_they_stand(monkeypatch, large, without, residual):
    monkeypatch.setattr(reference, "LARGE", large)
    monkeypatch.setattr(segments.SegmentedRows, "gather", _flattened)
    inputs = {name: value for name, value in tensors(length=33).items() if name not in without}
    got, want = both(inputs, ids=[3, 0, 2, 2, 1, 0, 3], residual=residual)
    assert_all_close(got, want, torch.float64)


def _flattened(rows, x):
    assert rows.order is None
    return x.reshape(-1, x.shape[-1])


@pytest.mark.parametrize("large", [0, 2**20], ids=["large weights", "small weights"])
def test_a_scale_that_is_a_number_matches_the_same_scale_per_task(monkeypatch, large):
    monkeypatch.setattr(reference, "LARGE", large)
    inputs = tensors()
    scale = inputs.pop("scale")
    got, _ = both(inputs, scale=0.5)
    _, want = both({**inputs, "scale": torch.full_like(scale, 0.5).requires_grad_()})
    assert_all_close(got, want[:-1], torch.float64)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_matches(act):
    inputs = tensors(scale=(4,))
    del inputs["norm_weight"], inputs["norm_bias"]
    got, want = both(inputs, act=act)
    assert_all_close(got, want, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_lower_precision_stays_within_the_tolerance(dtype):
    inputs = tensors(dtype, d=64, d_out=64, r=16)
    inputs = {k: (v.detach() * 0.3).to(dtype).requires_grad_() for k, v in inputs.items()}
    got, want = both(inputs)
    for one, other in zip(got, want, strict=True):
        assert relative_error(one, other) <= 3 * TOLERANCE[dtype]


@pytest.mark.parametrize("ids", [[-1] * 7, [1] * 7, [0, 0, 1, 1, 2, 3, 3]], ids=["identity", "one", "sorted"])
@pytest.mark.usefixtures("rows")
def test_extreme_routings_match(ids):
    got, want = both(tensors(), ids=ids)
    assert_all_close(got, want, torch.float64)


def test_gradcheck_covers_every_input():
    inputs = tensors(rows=3, length=2, d=5, r=2, d_out=4, scale=(4, 4))
    residual = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)

    def call(x, down, up, down_bias, up_bias, scale, norm_weight, norm_bias, residual):
        return call_bottleneck(
            x, down, up, down_bias=down_bias, up_bias=up_bias, scale=scale, norm_weight=norm_weight,
            norm_bias=norm_bias, residual=residual, task_ids=torch.tensor([2, -1, 3]), dropout=0.3, seed=7,
            down_slots=torch.tensor(DOWN_SLOTS), up_slots=torch.tensor(UP_SLOTS),
        )  # fmt: skip

    assert torch.autograd.gradcheck(call, (*inputs.values(), residual))


def test_offsets_mean_the_same_as_sorted_ids():
    i = tensors()
    ids, offsets = torch.tensor([0, 0, 0, 2, 2, 2, 2]), torch.tensor([3, 3, 7])
    up = i["up"]
    down = torch.randn(3, 12, 4, dtype=torch.float64)
    by_id = call_bottleneck(i["x"], down, up, task_ids=ids)
    assert torch.equal(by_id, call_bottleneck(i["x"], down, up, offsets=offsets))


def test_without_routing_every_row_is_task_zero():
    i = tensors()
    alone = call_bottleneck(i["x"], i["down"], i["up"])
    zeros = torch.zeros(7, dtype=torch.int64)
    routed = call_bottleneck(
        i["x"], i["down"], i["up"], task_ids=zeros, down_slots=torch.tensor([0]), up_slots=torch.tensor([0])
    )
    torch.testing.assert_close(alone, routed)
    moved = call_bottleneck(
        i["x"], i["down"], i["up"], down_slots=torch.tensor([1]), up_slots=torch.tensor([2])
    )
    torch.testing.assert_close(moved, call_bottleneck(i["x"], i["down"][1:], i["up"][2:]))


@pytest.mark.usefixtures("rows")
def test_unused_slots_get_exactly_zero_gradients():
    i = tensors()
    y = call_bottleneck(
        i["x"], i["down"], i["up"], down_bias=i["down_bias"], up_bias=i["up_bias"],
        task_ids=torch.tensor([0, 0, 3, 3, 0, -1, 0]), down_slots=torch.tensor([0, 1, 1, 0]),
        up_slots=torch.tensor([2, 1, 0, 2]),
    )  # fmt: skip
    y.sum().backward()
    assert not i["down"].grad[1].any()
    assert not i["down_bias"].grad[1].any()
    assert not i["up"].grad[:2].any()
    assert not i["up_bias"].grad[:2].any()
    assert i["up"].grad[2].any()


def test_identity_rows_ignore_nan_inputs():
    x = torch.randn(3, 4, 8)
    x[1] = float("nan")
    x.requires_grad_()
    down, up = torch.randn(2, 8, 4, requires_grad=True), torch.randn(2, 4, 8, requires_grad=True)
    y = call_bottleneck(x, down, up, task_ids=torch.tensor([0, -1, 1]))
    assert not y[1].any()
    y.sum().backward()
    assert down.grad.isfinite().all()


@pytest.mark.parametrize("rows_count", [0, 1])
def test_zero_and_one_row_work(rows_count):
    x = torch.randn(rows_count, 3, 8, requires_grad=True)
    down, up = torch.randn(2, 8, 4, requires_grad=True), torch.randn(2, 4, 8, requires_grad=True)
    ids = torch.zeros(rows_count, dtype=torch.int32)
    y = call_bottleneck(x, down, up, task_ids=ids, residual=x)
    assert y.shape == x.shape
    y.sum().backward()
    assert down.grad.shape == down.shape


def test_rows_without_routing_may_be_empty():
    x = torch.randn(0, 8, requires_grad=True)
    y = call_bottleneck(x, torch.randn(1, 8, 4), torch.randn(1, 4, 6))
    y.sum().backward()
    assert y.shape == (0, 6)
    assert x.grad.shape == (0, 8)


def test_layouts_do_not_matter():
    base = torch.randn(12, 4, 7)
    x = base.permute(1, 2, 0)
    down, up = torch.randn(12, 5, 1).permute(2, 0, 1), torch.randn(1, 12, 5).transpose(1, 2)
    got = call_bottleneck(x, down, up, residual=x)
    torch.testing.assert_close(
        got, call_bottleneck(x.contiguous(), down.contiguous(), up.contiguous(), residual=x)
    )


def test_an_expanded_gradient_equals_a_dense_one():
    i = tensors(torch.float32)
    y = call_bottleneck(i["x"], i["down"], i["up"], residual=i["x"])
    expanded = torch.autograd.grad(y.sum(), i["x"], retain_graph=True)[0]
    torch.testing.assert_close(expanded, torch.autograd.grad(y, i["x"], torch.ones_like(y))[0])


def test_two_runs_are_bitwise_equal():
    first, _ = both(tensors(torch.float32))
    second, _ = both(tensors(torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_identity_activation_is_lora_for_many_tasks():
    x, w = torch.randn(4, 8, dtype=torch.float64), torch.randn(8, 6, dtype=torch.float64)
    a, b = torch.randn(2, 8, 3, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    ids = torch.tensor([1, 0, 1, 1])
    y = call_bottleneck(x, a, b, task_ids=ids, residual=x @ w, scale=0.5, activation="identity")
    want = torch.stack([x[i] @ (w + 0.5 * a[t] @ b[t]) for i, t in enumerate(ids.tolist())])
    torch.testing.assert_close(y, want)


def test_weights_are_used_in_the_dtype_of_the_input_and_keep_their_gradients_dtype():
    x = torch.randn(2, 3, 8, dtype=torch.bfloat16)
    down, up = torch.randn(1, 8, 4, requires_grad=True), torch.randn(1, 4, 8, requires_grad=True)
    y = call_bottleneck(x, down, up)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert down.grad.dtype == torch.float32


def test_a_wider_residual_keeps_its_dtype():
    x, residual = torch.randn(2, 8, dtype=torch.bfloat16), torch.randn(2, 8, requires_grad=True)
    y = call_bottleneck(x, torch.randn(1, 8, 4), torch.zeros(1, 4, 8), residual=residual)
    assert torch.equal(y, residual)
    y.sum().backward()
    assert residual.grad.dtype == torch.float32


def test_a_half_shared_part_needs_no_copies_and_sums_its_gradient_over_tasks():
    x = torch.randn(6, 8, dtype=torch.float64)
    down = torch.randn(1, 8, 4, dtype=torch.float64, requires_grad=True)
    up = torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([0, 1, 2, 0, 1, 2])
    call_bottleneck(x, down, up, task_ids=ids).sum().backward()
    total = torch.zeros_like(down)
    for task in range(3):
        rows = x[ids == task]
        alone = call_bottleneck(rows, down, up[task : task + 1])
        total += torch.autograd.grad(alone.sum(), down)[0]
    torch.testing.assert_close(down.grad, total)
