import pytest
import torch
from torch.nn.functional import normalize

from weft.kernels import cache_class_sums
from weft.kernels.errors import KernelBackendError
from weft.kernels.testing import TOLERANCE, relative_error

pytestmark = pytest.mark.usefixtures("poisoned")
KEYS = 160


def call(dtype, backend, device, layout, *, queries=70, width=100, betas=(1.0, 5.5), weights=True):
    generator = torch.Generator().manual_seed(1)
    wide = torch.float64 if backend == "torch" else torch.float32

    def features(count):
        values = normalize(torch.randn(count, width, generator=generator), dim=1).to(dtype)
        return values.to(device, wide if backend == "torch" else dtype).requires_grad_()

    q, k = features(queries), features(KEYS)
    if isinstance(layout, int):
        given, classes = {"shots": layout}, KEYS // layout
    else:
        labels = torch.randint(0, 40, (KEYS,), generator=generator)
        labels[labels == 7] = 8
        given, classes = {"offsets": torch.bincount(labels, minlength=40).cumsum(0).to(device)}, 40
    grid = torch.tensor(betas, dtype=wide, device=device, requires_grad=True)
    init = torch.randn(queries, classes, generator=generator).to(device)
    inputs = [q, k, grid]
    if weights:
        given["key_weights"] = torch.rand(KEYS, generator=generator).to(device, wide).requires_grad_()
        inputs.append(given["key_weights"])
    y = cache_class_sums(q, k, beta=grid, init=init, alpha=1.3, backend=backend, **given)
    gradient = torch.randn(y.shape, generator=generator).to(device, y.dtype)
    return [y, *torch.autograd.grad(y, inputs, gradient)]


@pytest.mark.parametrize("weights", [True, False], ids=["weights", "plain"])
@pytest.mark.parametrize("layout", [1, 16, 5, "ragged"])
def test_sums_and_gradients_match_the_reference(device, dtype, layout, weights):
    got = call(dtype, "triton", device, layout, weights=weights)
    want = call(dtype, "torch", device, layout, weights=weights)
    # The sums keep float32 whatever the features are; the feature gradients are rounded to their dtype.
    limits = [TOLERANCE[torch.float32], TOLERANCE[dtype], TOLERANCE[dtype], 1e-5, 1e-5]
    for position, (one, other, limit) in enumerate(zip(got, want, limits, strict=False)):
        assert relative_error(one, other) <= limit, position


@pytest.mark.parametrize("queries", [1, 64, 65])
def test_edges_of_tiles_match(device, queries):
    got = call(torch.float32, "triton", device, "ragged", queries=queries, width=16, betas=(3.0,))
    want = call(torch.float32, "torch", device, "ragged", queries=queries, width=16, betas=(3.0,))
    for one, other in zip(got, want, strict=True):
        assert relative_error(one, other) <= 1e-5


def test_two_runs_are_bitwise_equal(device, dtype):
    first, second = (call(dtype, "triton", device, "ragged") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_wide_features_are_refused_by_name(device):
    q, k = torch.zeros(2, 1025, device=device), torch.zeros(4, 1025, device=device)
    with pytest.raises(KernelBackendError, match="features of at most"):
        cache_class_sums(q, k, beta=1.0, shots=2, backend="triton")


def test_empty_sides_launch_nothing(device):
    q = torch.zeros(0, 16, device=device, requires_grad=True)
    k = torch.zeros(4, 16, device=device, requires_grad=True)
    y = cache_class_sums(q, k, beta=1.0, shots=2, backend="triton")
    y.sum().backward()
    assert y.shape == (0, 2)
    assert not k.grad.any()
