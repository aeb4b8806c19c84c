import pytest
import torch

from weft.kernels import BottleneckWeights, adapter_bottleneck
from weft.kernels.errors import (
    KernelBackendError,
    KernelDeviceError,
    KernelError,
    KernelShapeError,
    KernelTypeError,
    KernelValueError,
)
from weft.kernels.testing import call_bottleneck

X, DOWN, UP = torch.zeros(4, 3, 8), torch.zeros(2, 8, 4), torch.zeros(2, 4, 8)


def ids(*values):
    return torch.tensor(values)


CASES = {
    "x-list": ({"x": [1.0]}, KernelTypeError, "`x` must be a tensor"),
    "down-list": (
        {"weights": BottleneckWeights([1.0], UP)},
        KernelTypeError,
        "`down` must be a tensor",
    ),
    "weights-tuple": ({"weights": (DOWN, UP)}, KernelTypeError, "`weights` must be a BottleneckWeights"),
    "routing-ids": ({"routing": ids(0, 1, 0, 1)}, KernelTypeError, "`routing` must be a RoutedRows"),
    "ids-list": ({"task_ids": [0, 1, 0, 1]}, KernelTypeError, "`task_ids` must be a tensor"),
    "slots-tasks": (
        {"task_ids": ids(0, 1, 1, 0), "tasks": 2, "down_slots": ids(0, 1, 0)},
        KernelShapeError,
        "`down_slots` must have size 2",
    ),
    "x-rank": ({"x": torch.zeros(8)}, KernelShapeError, r"`x` must have shape \(rows, \.\.\., d_in\)"),
    "x-dtype": ({"x": torch.zeros(4, 8, dtype=torch.int64)}, KernelTypeError, "`x` must be float16"),
    "down-rank": ({"down": torch.zeros(8, 4)}, KernelShapeError, r"`down` must have shape \(down slots"),
    "up-rank": ({"up": torch.zeros(4, 8)}, KernelShapeError, r"`up` must have shape \(up slots"),
    "down-width": (
        {"down": torch.zeros(2, 9, 4)},
        KernelShapeError,
        "`down` must have size 8 in dimension 1",
    ),
    "up-width": ({"up": torch.zeros(2, 5, 8)}, KernelShapeError, "`up` must have size 4 in dimension 1"),
    "down-bias-slots": ({"down_bias": torch.zeros(3, 4)}, KernelShapeError, "`down_bias` must have size 2"),
    "up-bias-width": ({"up_bias": torch.zeros(2, 7)}, KernelShapeError, "`up_bias` must have size 8"),
    "norm-width": ({"norm_weight": torch.zeros(7)}, KernelShapeError, "`norm_weight` must have size 8"),
    "norm-bias": ({"norm_bias": torch.zeros(8)}, KernelValueError, "`norm_weight` must be given"),
    "residual": (
        {"residual": torch.zeros(4, 8)},
        KernelShapeError,
        "`residual` must have the shape of the output",
    ),
    "device": ({"up": torch.zeros(2, 4, 8, device="meta")}, KernelDeviceError, "`up` must be on the device"),
    "ids-rank": (
        {"task_ids": torch.zeros(4, 1, dtype=torch.int64)},
        KernelShapeError,
        "`task_ids` must have shape",
    ),
    "ids-rows": ({"task_ids": ids(0, 1)}, KernelShapeError, "`routing.ids` must have size 4"),
    "ids-dtype": ({"task_ids": torch.zeros(4)}, KernelTypeError, "`task_ids` must be int32 or int64"),
    "ids-high": (
        {"task_ids": ids(0, 1, 2, 0)},
        KernelValueError,
        "`task_ids` must be below the number of tasks",
    ),
    "ids-low": ({"task_ids": ids(0, -2, 1, 0)}, KernelValueError, "`task_ids` must be -1"),
    "slots-rank": (
        {"down_slots": torch.zeros(1, 1, dtype=torch.int64)},
        KernelShapeError,
        "`down_slots` must have",
    ),
    "slots-range": (
        {"task_ids": ids(0, 1, 1, 0), "up_slots": ids(0, 2)},
        KernelValueError,
        "`up_slots` must hold slots",
    ),
    "slots-count": (
        {"task_ids": ids(0, 1, 1, 0), "down_slots": ids(0, 1, 0)},
        KernelShapeError,
        "`up` must have one slot, or one for each of the 3 tasks",
    ),
    "offsets-end": (
        {"offsets": ids(2, 3)},
        KernelValueError,
        r"`offsets` must end at the number of rows \(4\)",
    ),
    "offsets-order": ({"offsets": ids(5, 4)}, KernelValueError, "`offsets` must be sorted"),
    "offsets-rank": ({"offsets": ids(4).view(1, 1)}, KernelShapeError, "`offsets` must have shape"),
    "scale-shape": ({"scale": torch.zeros(2, 3)}, KernelShapeError, "`scale` must be a number or have shape"),
    "scale-tasks": ({"scale": torch.zeros(3)}, KernelShapeError, "`scale` must have one entry for each"),
    "scale-dtype": ({"scale": ids(1, 2)}, KernelTypeError, "`scale` must be float16"),
    "activation": ({"activation": "tanh"}, KernelValueError, "`activation` must be one of relu"),
    "dropout": ({"dropout": 1.0}, KernelValueError, r"`dropout` must lie in \[0, 1\)"),
    "seed": ({"dropout": 0.1, "seed": torch.zeros(2)}, KernelTypeError, "`seed` must be an int"),
    "backend": ({"backend": "cuda"}, KernelValueError, "`backend` must be one of auto"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named(name):
    change, error, message = CASES[name]
    call, arguments = call_bottleneck, {"x": X, "down": DOWN, "up": UP, **change}
    if "weights" in change or "routing" in change:
        call, arguments = adapter_bottleneck, {"x": X, "weights": BottleneckWeights(DOWN, UP), **change}
    with pytest.raises(error, match=message) as caught:
        call(**arguments)
    assert isinstance(caught.value, KernelError)


def test_empty_offsets_are_refused():
    with pytest.raises(KernelValueError, match="last entry is missing"):
        call_bottleneck(X, DOWN[:1], UP[:1], offsets=torch.zeros(0, dtype=torch.int64))


def test_triton_is_refused_where_it_cannot_run(monkeypatch):
    from weft.kernels import backends

    monkeypatch.setattr(backends, "triton_installed", lambda: False)
    with pytest.raises(KernelBackendError, match="must be 'auto' or 'torch' where Triton is not installed"):
        call_bottleneck(X, DOWN, UP, backend="triton")
    monkeypatch.setattr(backends, "triton_installed", lambda: True)
    monkeypatch.setattr(backends, "interpreting", lambda: False)
    with pytest.raises(KernelBackendError, match="must get CUDA tensors"):
        call_bottleneck(X, DOWN, UP, backend="triton")
    with pytest.raises(KernelBackendError, match="must get float16, bfloat16 or float32"):
        call_bottleneck(X.double(), DOWN, UP, backend="triton")
