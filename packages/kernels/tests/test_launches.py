"""What is launched, and on how many programs, without Triton: device code is replaced by recorders.

What the kernels compute is tested in ``interpret``; here only the launches of a call are.
"""

import sys
from types import ModuleType

import pytest
import torch

from weft.kernels import (
    LowRankKronecker,
    backends,
    cache_class_sums,
    kronecker_bottleneck,
    kronecker_linear,
    phm_weight,
)
from weft.kernels.testing import call_bottleneck

KERNELS = {
    "bottleneck.kernels": (
        "bottleneck_forward", "bottleneck_backward_input", "outer_partials", "grouped_product",
    ),
    "cache.kernels": ("sums_uniform", "sums_ragged", "sums_backward"),
    "kronecker.kernels": (
        "kronecker_sum", "block_contract", "block_expand", "compacter_forward", "compacter_backward",
    ),
}  # fmt: skip
LAUNCHES = ("bottleneck.launch", "cache.launch", "kronecker.launch")


class Recorder:
    """Stands in for a kernel and notes name, grid and constants of every launch."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.notes.append((self.name, grid, constants))


@pytest.fixture
def launched(monkeypatch):
    """The list of launches; inside, backend="triton" is accepted."""
    notes = []
    for module, names in KERNELS.items():
        stand_in = ModuleType(f"weft.kernels.{module}")
        for name in names:
            setattr(stand_in, name, Recorder(name, notes))
        package, last = f"weft.kernels.{module}".rsplit(".", 1)
        monkeypatch.setitem(sys.modules, f"{package}.{last}", stand_in)
        monkeypatch.setattr(sys.modules[package], last, stand_in, raising=False)
    for module in LAUNCHES:
        package, last = f"weft.kernels.{module}".rsplit(".", 1)
        # A launcher imported with the real kernels must be imported again, and forgotten again afterwards.
        monkeypatch.setitem(sys.modules, f"{package}.{last}", None)
        monkeypatch.delitem(sys.modules, f"{package}.{last}")
        monkeypatch.setattr(sys.modules[package], last, None, raising=False)
        monkeypatch.delattr(sys.modules[package], last)
    monkeypatch.setattr(backends, "triton_installed", lambda: True)
    monkeypatch.setattr(backends, "interpreting", lambda: True)
    return notes


def names(notes):
    return [name for name, _, _ in notes]


def adapter(rank, **options):
    x = torch.randn(6, 50, 40, requires_grad=True)
    down = torch.randn(2, 40, rank, requires_grad=True)
    up = torch.randn(3, rank, 40, requires_grad=True)
    ids = torch.tensor([0, 1, -1, 3, 3, 2])
    slots = {"down_slots": torch.tensor([0, 1, 1, 0]), "up_slots": torch.tensor([2, 1, 0, 0])}
    y = call_bottleneck(x, down, up, task_ids=ids, residual=x, backend="triton", **slots, **options)
    y.sum().backward()
    assert y.shape == x.shape
    return down.grad.shape, up.grad.shape


def test_a_routed_adapter_is_one_launch_forward_and_three_backward(launched):
    assert adapter(24) == ((2, 40, 24), (3, 24, 40))
    assert names(launched) == [
        "bottleneck_forward", "bottleneck_backward_input", "outer_partials", "outer_partials",
    ]  # fmt: skip
    _, grid, constants = launched[0]
    # 300 tokens in tiles of 64, one more for each of four tasks and for the identity rows.
    assert grid == (5 + 5,)
    assert constants["BR"] == 32
    assert constants["ROUTED"]
    assert constants["RESIDUAL"]
    assert not constants["NORM"]


def test_norm_dropout_and_scale_become_constants_of_the_launch(launched):
    adapter(
        8,
        norm_weight=torch.randn(40, requires_grad=True),
        norm_bias=torch.randn(40),
        down_bias=torch.randn(2, 8),
        up_bias=torch.randn(3, 40),
        scale=torch.randn(4, 40, requires_grad=True),
        dropout=0.5,
    )
    for name, _, constants in launched[:2]:
        assert constants["NORM"], name
        assert constants["DROP"] == 1 << 23, name
        assert constants["DROP_INPUT"] == constants["DROP_HIDDEN"] == 0, name
        assert constants["SCALE"] == "channel"
        assert constants["DOWN_BIAS"]


def test_a_scale_per_task_keeps_its_shape(launched):
    scale = torch.randn(4, requires_grad=True)
    adapter(8, scale=scale)
    assert scale.grad.shape == (4,)
    assert launched[0][2]["SCALE"] == "task"


def test_dropout_of_a_normalised_input_takes_two_launches_each_way(launched):
    adapter(8, norm_weight=torch.randn(40, requires_grad=True), input_dropout=0.5)
    assert names(launched) == ["grouped_product"] * 4 + ["outer_partials"] * 2


def test_a_wide_bottleneck_takes_two_launches_each_way(launched):
    adapter(160, norm_weight=torch.randn(40, requires_grad=True))
    assert names(launched) == ["grouped_product"] * 4 + ["outer_partials"] * 2
    assert launched[0][1] == (10, 2)
    # Two blocks of ranks for one slice of columns and four tasks.
    assert launched[-1][1][:2] == (2, 4)


def test_nothing_is_launched_for_no_rows_and_nothing_kept_for_no_gradient(launched):
    x = torch.randn(0, 8, requires_grad=True)
    call_bottleneck(x, torch.randn(1, 8, 4), torch.randn(1, 4, 8), backend="triton")
    assert launched == []
    with torch.no_grad():
        call_bottleneck(torch.randn(3, 8), torch.randn(1, 8, 4), torch.randn(1, 4, 8), backend="triton")
        call_bottleneck(torch.randn(3, 8), torch.randn(1, 8, 200), torch.randn(1, 200, 8), backend="triton")
    assert not launched[0][2]["SAVE"]
    assert not launched[0][2]["ROUTED"]


@pytest.mark.parametrize(
    ("shots", "kernel"), [(4, "sums_uniform"), (5, "sums_ragged"), (None, "sums_ragged")]
)
def test_the_layout_of_the_cache_chooses_its_kernel(launched, shots, kernel):
    queries = torch.randn(70, 32, requires_grad=True)
    keys = torch.randn(200, 32, requires_grad=True)
    betas = torch.tensor([1.0, 2.0], requires_grad=True)
    layout = {"shots": shots} if shots else {"offsets": torch.tensor([50, 50, 200])}
    weights = torch.rand(200, requires_grad=True)
    y = cache_class_sums(queries, keys, beta=betas, key_weights=weights, backend="triton", **layout)
    assert y.shape == (2, 70, 200 // shots if shots else 3)
    y.sum().backward()
    assert names(launched) == [kernel, "sums_backward", "sums_backward"]
    grid = {4: (2, 2), 5: (2, 2, 2), None: (2, 1, 2)}[shots]
    assert launched[0][1] == grid
    assert launched[1][1] == (2,)
    assert launched[2][1] == (4,)
    assert betas.grad.shape == (2,)


def test_an_empty_cache_launches_nothing(launched):
    cache_class_sums(torch.randn(0, 8), torch.randn(4, 8), beta=1.0, shots=2, backend="triton")
    assert launched == []


def low_rank(d_in, d_out, n=2, rank=1):
    return LowRankKronecker(
        *(
            torch.randn(*s, requires_grad=True)
            for s in ((n, n, n), (n, d_in // n, rank), (n, rank, d_out // n))
        )
    )


def test_a_compacter_adapter_is_one_launch_forward(launched):
    down, up, x = low_rank(40, 8), low_rank(8, 40), torch.randn(100, 40, requires_grad=True)
    kronecker_bottleneck(x, down, up, residual=x, backend="triton").sum().backward()
    assert names(launched) == ["compacter_forward", "compacter_backward"] + ["outer_partials"] * 4
    assert launched[0][1] == (2,)
    assert launched[0][2]["BI"] == 16
    assert down.left.grad.shape == down.left.shape


@pytest.mark.parametrize(
    ("plan", "forward"),
    [
        ("thin", ["block_contract", "block_expand"]),
        ("merge_right", ["block_contract"]),
        ("merge_left", ["block_expand"]),
    ],
)
def test_thin_orders_read_and_write_the_wide_sides_once(launched, plan, forward):
    factors, x, bias = low_rank(40, 24), torch.randn(9, 40, requires_grad=True), torch.randn(24)
    y = kronecker_linear(
        x, factors.rule, left=factors.left, right=factors.right, bias=bias, order=plan, backend="triton"
    )
    assert names(launched) == forward
    y.sum().backward()
    assert factors.right.grad.shape == factors.right.shape


def test_sums_of_products_launch_one_program_per_block(launched):
    rule, weight = torch.randn(2, 3, 4), torch.randn(5, 2, 33, 65, requires_grad=True)
    assert phm_weight(rule, weight, backend="triton").shape == (5, 99, 260)
    assert launched[0][1] == (5 * 12, 2, 2)


def test_too_wide_thin_sides_leave_the_kernels_out(launched):
    factors, x = low_rank(300, 300, rank=80), torch.randn(4, 300)
    kronecker_linear(x, factors.rule, left=factors.left, right=factors.right, order="thin", backend="triton")
    assert launched == []
