import pytest
import torch
from torch.nn.functional import normalize

from weft.kernels import affinity_difference, cache_class_sums, cache_logits, sort_by_class
from weft.kernels.cache import reference
from weft.kernels.errors import (
    DoubleBackwardError,
    KernelDeviceError,
    KernelShapeError,
    KernelTypeError,
    KernelValueError,
)
from weft.kernels.testing import TOLERANCE, assert_all_close, naive_cache, relative_error

LABELS = torch.tensor([0] * 3 + [2] * 5 + [3] * 4)
OFFSETS = torch.tensor([3, 3, 8, 12])
EVEN = torch.arange(12) // 3


def unit(*shape, dtype=torch.float64):
    return normalize(torch.randn(*shape, dtype=torch.float64), dim=-1).to(dtype).requires_grad_()


@pytest.fixture(params=["ragged", "uniform"])
def layout(request):
    """Keyword arguments that describe 12 keys of 4 classes, and the labels they mean."""
    return ({"offsets": OFFSETS}, LABELS) if request.param == "ragged" else ({"shots": 3}, EVEN)


@pytest.fixture(params=[1 << 20, 40], ids=["one-block", "many-blocks"], autouse=True)
def block_size(request, monkeypatch):
    """Also cut the small test problems into many blocks."""
    monkeypatch.setattr(reference, "_BLOCK_ELEMENTS", request.param)
    if request.param < 100:
        monkeypatch.setattr(reference, "_QUERIES", 4)


def test_logits_and_all_gradients_equal_the_full_matrix(layout):
    torch.manual_seed(0)
    given, labels = layout
    q, k, init = unit(5, 8), unit(12, 8), torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(12, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(5.5, dtype=torch.float64, requires_grad=True)
    inputs = (q, k, init, weights, beta)
    got = cache_logits(q, k, beta=beta, alpha=1.7, init=init, key_weights=weights, **given)
    want = init + 1.7 * naive_cache(q, k, labels, 4, beta, weights)
    g = torch.randn_like(want)
    assert_all_close(
        [got, *torch.autograd.grad(got, inputs, g)],
        [want, *torch.autograd.grad(want, inputs, g)],
        torch.float64,
    )


def test_a_grid_of_betas_takes_one_call(layout):
    given, labels = layout
    q, k = unit(5, 8), unit(12, 8)
    grid = torch.tensor([1.0, 5.5, 20.0], dtype=torch.float64, requires_grad=True)
    got = cache_logits(q, k, beta=grid, alpha=2.0, init=torch.ones(5, 4, dtype=torch.float64), **given)
    want = 1 + 2 * torch.stack([naive_cache(q, k, labels, 4, beta) for beta in grid])
    g = torch.randn_like(want)
    assert_all_close(
        [got, *torch.autograd.grad(got, (q, k, grid), g)],
        [want, *torch.autograd.grad(want, (q, k, grid), g)],
        torch.float64,
    )


@pytest.mark.parametrize("text", ["per-key", "per-class"])
@pytest.mark.parametrize("ratio", ["number", "scalar", "query", "class"])
@pytest.mark.parametrize("mix", ["after", "before"])
def test_two_modalities_mix_before_or_after_the_exponential(layout, mix, ratio, text):
    torch.manual_seed(3)
    given, labels = layout
    q, k, tq = unit(5, 8), unit(12, 8), unit(5, 6)
    per_class = unit(4, 6)
    per_key = unit(12, 6)
    share = {
        "number": 0.3,
        "scalar": torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
        "query": torch.rand(5, 1, dtype=torch.float64, requires_grad=True),
        "class": torch.rand(4, dtype=torch.float64, requires_grad=True),
    }[ratio]
    weights = torch.rand(12, dtype=torch.float64)
    keys = {"text_class_keys": per_class} if text == "per-class" else {"text_keys": per_key}
    text_beta = {"text_beta": 3.0} if mix == "after" else {}
    got = cache_logits(
        q, k, beta=5.5, alpha=1.5, key_weights=weights, class_weights=torch.arange(1.0, 5.0), text_queries=tq,
        ratio=share, mix=mix, **keys, **text_beta, **given,
    )  # fmt: skip
    tk = per_class[labels] if text == "per-class" else per_key
    wide = share[labels] if ratio == "class" else share
    image, other = 1 - q @ k.T, 1 - tq @ tk.T
    if mix == "after":
        affinity = wide * (-5.5 * image).exp() + (1 - wide) * (-3.0 * other).exp()
    else:
        affinity = (-5.5 * (wide * image + (1 - wide) * other)).exp()
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    want = 1.5 * torch.arange(1.0, 5.0) * ((affinity * weights) @ one_hot)
    inputs = [q, k, tq, next(iter(keys.values()))] + ([share] if isinstance(share, torch.Tensor) else [])
    g = torch.randn_like(want)
    assert_all_close(
        [got, *torch.autograd.grad(got, inputs, g)],
        [want, *torch.autograd.grad(want, inputs, g)],
        torch.float64,
    )


def test_a_ratio_may_depend_on_the_sums_that_it_mixes(layout):
    given, _ = layout
    q, k, tq, tk = unit(5, 8), unit(12, 8), unit(5, 6), unit(4, 6)
    caches = {"queries": q, "keys": k, "beta": 2.0, "text_queries": tq, "text_class_keys": tk, **given}
    image, text = (cache_logits(**caches, ratio=share) for share in (1.0, 0.0))
    share = image.amax(1, keepdim=True) / (image.amax(1, keepdim=True) + text.amax(1, keepdim=True))

    def ratio(image, text):
        sure, unsure = image.amax(1, keepdim=True), text.amax(1, keepdim=True)
        return sure / (sure + unsure)

    assert torch.equal(cache_logits(**caches, ratio=ratio), cache_logits(**caches, ratio=share))


def test_class_text_keys_count_once_per_key_without_weights(layout):
    given, labels = layout
    q, k, tq, tk = unit(5, 8), unit(12, 8), unit(5, 6), unit(4, 6)
    got = cache_logits(q, k, beta=2.0, text_queries=tq, text_class_keys=tk, ratio=0.0, **given)
    torch.testing.assert_close(got, naive_cache(tq, tk[labels], labels, 4, 2.0))


def test_a_tensor_alpha_may_be_trained():
    q, k = unit(5, 8), unit(12, 8)
    alpha = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    got = cache_logits(q, k, beta=2.0, alpha=alpha, shots=3, init=torch.ones(5, 4, dtype=torch.float64))
    sums = naive_cache(q, k, EVEN, 4, 2.0)
    torch.testing.assert_close(got, 1 + alpha * sums)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), alpha)[0], sums.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_half_precision_features_keep_full_precision_sums(dtype, layout):
    torch.manual_seed(4)
    given, labels = layout
    q, k = unit(5, 8, dtype=dtype), unit(12, 8, dtype=dtype)
    got = cache_class_sums(q, k, beta=5.5, **given)
    assert got.dtype == torch.float32
    want = naive_cache(q.double(), k.double(), labels, 4, 5.5)
    assert relative_error(got, want) <= TOLERANCE[torch.float32]
    got.sum().backward()
    assert k.grad.dtype == dtype


def test_autocast_does_not_lower_the_affinities():
    q, k = unit(5, 8, dtype=torch.float32), unit(12, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cache_logits(q, k, beta=5.5, shots=3)
    assert torch.equal(inside, cache_logits(q, k, beta=5.5, shots=3))


def test_image_and_text_affinities_differ_by_their_mean_distance():
    q, k, tq, tk = unit(5, 8), unit(12, 8), unit(5, 6), unit(12, 6)
    got = affinity_difference(q, k, tq, tk, beta=5.5, text_beta=2.0)
    want = ((-5.5 * (1 - q @ k.T)).exp() - (-2.0 * (1 - tq @ tk.T)).exp()).abs().mean(1)
    torch.testing.assert_close(got, want)
    assert not got.requires_grad
    same = affinity_difference(q, k, q, k, beta=5.5)
    assert not same.any()


def test_sorting_prepares_any_labels():
    torch.manual_seed(5)
    labels = torch.randint(0, 6, (40,))
    order, offsets = sort_by_class(labels, 7)
    q, k = unit(3, 8), unit(40, 8)
    torch.testing.assert_close(
        cache_class_sums(q, k[order], beta=3.0, offsets=offsets), naive_cache(q, k, labels, 7, 3.0)
    )
    assert sort_by_class(labels[:0], 3).offsets.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("queries", "keys"), [(0, 12), (3, 0)])
def test_empty_sides_work(queries, keys):
    q, k = unit(queries, 8), unit(keys, 8)
    offsets = torch.full((4,), keys)
    y = cache_logits(q, k, beta=1.0, offsets=offsets)
    y.sum().backward()
    assert y.shape == (queries, 4)
    assert k.grad.shape == k.shape


def test_frozen_keys_cost_no_gradient_and_layouts_do_not_matter():
    q, k = unit(5, 8), unit(12, 8).detach()
    y = cache_class_sums(q, k, beta=2.0, shots=3)
    torch.testing.assert_close(y, cache_class_sums(q.T.contiguous().T, k.T.contiguous().T, beta=2.0, shots=3))
    torch.testing.assert_close(
        torch.autograd.grad(y.sum(), q, retain_graph=True), torch.autograd.grad(y, q, torch.ones_like(y))
    )


def test_registration_passes_opcheck_and_compiles_whole(layout):
    given, _ = layout
    q, k = unit(5, 8, dtype=torch.float32), unit(12, 8, dtype=torch.float32)
    betas = torch.tensor([1.0, 2.0], requires_grad=True)
    init, weights = torch.randn(5, 4, requires_grad=True), torch.rand(12, requires_grad=True)
    shots, offsets = given.get("shots", 0), given.get("offsets")
    arguments = (q, k, offsets, betas, weights, init, 1.5, shots, 4, "auto")
    torch.library.opcheck(torch.ops.weft.cache_class_sums.default, arguments)

    def step(q, k):
        return cache_logits(q, k, beta=betas, alpha=2.0, init=init, **given).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(q, k), (q, k)), torch.autograd.grad(step(q, k), (q, k))
    )


def test_double_backward_raises():
    q, k = unit(5, 8), unit(12, 8)
    (gradient,) = torch.autograd.grad(cache_logits(q, k, beta=1.0, shots=3).sum(), k, create_graph=True)
    with pytest.raises(DoubleBackwardError, match="must not be differentiated"):
        gradient.sum().backward()


Q, K = torch.zeros(5, 8), torch.zeros(12, 8)
T = torch.zeros(5, 6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"queries": 1.0}, KernelTypeError, "`queries` must be a tensor"),
        ({"queries": torch.zeros(8)}, KernelShapeError, "`queries` must have shape"),
        ({"keys": torch.zeros(12, 7)}, KernelShapeError, "`keys` must have size 8"),
        ({"keys": K.int()}, KernelTypeError, "`keys` must be float16"),
        ({"keys": K.to("meta")}, KernelDeviceError, "`keys` must be on the device"),
        ({"shots": None}, KernelValueError, "`shots` must be given"),
        ({"offsets": OFFSETS}, KernelValueError, "`shots` must be given"),
        ({"shots": 5}, KernelValueError, "`shots` must be positive and divide"),
        ({"shots": None, "offsets": OFFSETS.float()}, KernelTypeError, "`offsets` must be int32"),
        (
            {"shots": None, "offsets": OFFSETS - 1},
            KernelValueError,
            "`offsets` must end at the number of keys",
        ),
        ({"shots": None, "offsets": OFFSETS[:0]}, KernelValueError, "last entry is missing"),
        ({"shots": None, "offsets": OFFSETS[[2, 0, 3]]}, KernelValueError, "`offsets` must be sorted"),
        ({"key_weights": torch.zeros(5)}, KernelShapeError, "`key_weights` must have size 12"),
        ({"init": torch.zeros(5, 3)}, KernelShapeError, "`init` must have size 4"),
        ({"beta": torch.zeros(2, 2)}, KernelShapeError, "`beta` must be a number"),
        ({"mix": "between"}, KernelValueError, "`mix` must be one of"),
        ({"text_queries": T}, KernelValueError, "`text_queries` must be given with exactly one"),
        ({"text_beta": 1.0}, KernelValueError, "`text_beta` must come with a text cache"),
        (
            {"text_queries": T[:4], "text_keys": torch.zeros(12, 6)},
            KernelShapeError,
            "`text_queries` must have size 5",
        ),
        (
            {"text_queries": T, "text_keys": torch.zeros(12, 6), "mix": "before", "ratio": torch.lerp},
            KernelValueError,
            "`ratio` may be a function of the class sums only with mix='after'",
        ),
        ({"backend": "x"}, KernelValueError, "`backend` must be one of"),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        cache_logits(**({"queries": Q, "keys": K, "beta": 1.0, "shots": 3} | change))


def test_labels_out_of_range_are_refused():
    with pytest.raises(KernelValueError, match=r"`labels` must lie in \[0, 3\)"):
        sort_by_class(LABELS, 3)
