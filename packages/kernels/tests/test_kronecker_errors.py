import pytest
import torch

from weft.kernels import LowRankKronecker, kron, kronecker_bottleneck, kronecker_linear, phm_weight
from weft.kernels.errors import KernelDeviceError, KernelShapeError, KernelTypeError, KernelValueError

X, RULE, LEFT, RIGHT, WEIGHT = (
    torch.zeros(3, 8), torch.zeros(2, 2, 2), torch.zeros(2, 4, 1), torch.zeros(2, 1, 3), torch.zeros(2, 4, 3),
)  # fmt: skip
DOWN = LowRankKronecker(RULE, LEFT, RIGHT)
UP = LowRankKronecker(RULE, torch.zeros(2, 3, 1), torch.zeros(2, 1, 4))


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        ([1.0], X, KernelTypeError, "`a` must be a tensor"),
        (X, torch.zeros(3), KernelShapeError, "`b` must have at least 2 dimensions"),
        (X.int(), X, KernelTypeError, "`a` must be float16"),
        (X, X.to("meta"), KernelDeviceError, "`b` must be on the device"),
        (
            torch.zeros(2, 1, 1),
            torch.zeros(3, 1, 1),
            KernelShapeError,
            "leading dimensions of the two factors",
        ),
    ],
    ids=["type", "rank", "dtype", "device", "batch"],
)
def test_kron_names_bad_input(a, b, error, message):
    with pytest.raises(error, match=message):
        kron(a, b)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, KernelValueError, "`left` and `right` must both be given"),
        ({"weight": WEIGHT, "left": LEFT}, KernelValueError, "`weight` must not be given together"),
        (
            {"left": LEFT, "right": torch.zeros(2, 2, 3)},
            KernelShapeError,
            "`right` must have the rank of `left`",
        ),
        ({"weight": torch.zeros(3, 4, 3)}, KernelShapeError, "`rule` must have as many terms"),
    ],
    ids=["neither", "both", "rank", "terms"],
)
def test_phm_weight_names_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        phm_weight(RULE, **arguments)


LOW = {"left": LEFT, "right": RIGHT}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": 1.0, **LOW}, KernelTypeError, "`x` must be a tensor"),
        ({"x": torch.zeros(3, 9), **LOW}, KernelShapeError, "`x` must have last size 8"),
        ({"rule": X, **LOW}, KernelShapeError, "`rule` must have shape"),
        ({}, KernelValueError, "`weight` must be given, or `left` and `right`"),
        ({"left": LEFT}, KernelValueError, "`left` and `right` must be given together"),
        ({"weight": WEIGHT[:1]}, KernelShapeError, "`weight` must have size 2"),
        ({"weight": X}, KernelShapeError, "`weight` must have shape"),
        ({**LOW, "right": torch.zeros(2, 2, 3)}, KernelShapeError, "`right` must have size 1"),
        ({**LOW, "bias": torch.zeros(5)}, KernelShapeError, "`bias` must have size 6"),
        ({**LOW, "order": "right_first"}, KernelValueError, "`order` must be one of"),
        ({**LOW, "backend": "gpu"}, KernelValueError, "`backend` must be one of"),
    ],
)
def test_kronecker_linear_names_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        kronecker_linear(**({"x": X, "rule": RULE} | arguments))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": 1.0}, KernelTypeError, "`x` must be a tensor"),
        ({"x": torch.zeros(3, 9)}, KernelShapeError, "`x` must have last size 8"),
        ({"up": DOWN}, KernelShapeError, "`up` must take 6 inputs"),
        ({"down": DOWN._replace(rule=X)}, KernelShapeError, "`down.rule` must have shape"),
        ({"down": DOWN._replace(left=LEFT[:1])}, KernelShapeError, "`down.left` must have size 2"),
        ({"up_bias": torch.zeros(6)}, KernelShapeError, "`up_bias` must have size 8"),
        ({"residual": torch.zeros(3, 6)}, KernelShapeError, "`residual` must have the shape of the output"),
        ({"activation": "elu"}, KernelValueError, "`activation` must be one of"),
    ],
)
def test_kronecker_bottleneck_names_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        kronecker_bottleneck(**({"x": X, "down": DOWN, "up": UP} | arguments))
