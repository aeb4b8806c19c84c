"""The public functions `cache_class_sums`, `cache_logits` and `affinity_difference`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import weft.kernels.cache.op  # noqa: F401  (registers the op)
from weft.kernels.backends import accumulator, check_backend
from weft.kernels.cache import reference
from weft.kernels.cache.layout import labels_of
from weft.kernels.checks import (
    check_choice,
    check_floating,
    check_integer,
    check_is_tensor,
    check_rank,
    check_size,
    check_tensors,
)
from weft.kernels.errors import KernelShapeError, KernelValueError

MIXES = ("after", "before")
Ratio = float | Tensor | Callable[[Tensor, Tensor], Tensor]


def cache_class_sums(
    queries: Tensor,
    keys: Tensor,
    *,
    beta: float | Tensor,
    shots: int | None = None,
    offsets: Tensor | None = None,
    key_weights: Tensor | None = None,
    init: Tensor | None = None,
    alpha: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Sum the affinities of queries to cached keys per class, without a queries × keys matrix.

    The sums are::

        S[q, c] = init[q, c] + alpha · Σ_{j in c} key_weights[j] · exp(-beta · (1 - q·k_j))

    Args:
        queries: shape (queries, width); of unit length for a cosine, which is not enforced.
        keys: sorted by class (see `sort_by_class`), shape (keys, width).
        beta: sharpness; a number, a tensor of shape () or a grid of shape (betas,). May be trained.
        shots: keys per class, if all classes have equally many.
        offsets: otherwise the end of every class in `keys`, int32 or int64, shape (classes,).
        key_weights: shape (keys,). None: ones.
        init: added to the result, shape (queries, classes), such as zero-shot logits.
        alpha: factor of the sums.
        backend: ``auto``, ``triton`` or ``torch``.

    Returns:
        Shape (queries, classes), or (betas, queries, classes) for a grid; float64 for float64 queries, else
        float32.

    Raises:
        KernelShapeError: ranks or sizes disagree.
        KernelTypeError: a dtype is wrong or an argument is no tensor.
        KernelDeviceError: tensors live on different devices.
        KernelValueError: not exactly one of `shots` and `offsets` is given, or they do not fit the keys.
        KernelBackendError: `backend` cannot run here.
        DoubleBackwardError: a second derivative is asked for.

    Source: Zhang et al. 2022 (Tip-Adapter), eq. 5 and 6, with one-hot values written as a sum per class.

    Example:
        >>> q = torch.nn.functional.normalize(torch.ones(1, 4), dim=-1)
        >>> cache_class_sums(q, q.expand(4, 4), beta=5.5, shots=2)
        tensor([[2., 2.]])
    """
    classes = _check(queries, keys, shots, offsets, key_weights)
    check_backend(backend)
    grid = isinstance(beta, Tensor) and beta.dim() == 1
    betas = _betas(beta, queries)
    _check_init(init, queries, classes)
    keys = keys.to(queries.dtype)
    out = torch.ops.weft.cache_class_sums(
        queries, keys, offsets, betas, key_weights, init, float(alpha), shots or 0, classes, backend
    )
    return out if grid else out.squeeze(0)


def cache_logits(
    queries: Tensor,
    keys: Tensor,
    *,
    beta: float | Tensor,
    alpha: float | Tensor = 1.0,
    shots: int | None = None,
    offsets: Tensor | None = None,
    init: Tensor | None = None,
    key_weights: Tensor | None = None,
    class_weights: Tensor | None = None,
    text_queries: Tensor | None = None,
    text_keys: Tensor | None = None,
    text_class_keys: Tensor | None = None,
    text_beta: float | Tensor | None = None,
    ratio: Ratio = 0.5,
    mix: str = "after",
    backend: str = "auto",
) -> Tensor:
    """Logits of a cache model, of images alone or of images and texts.

    They are::

        logits = init + alpha · class_weights · Σ_{j in class} key_weights[j] · A[q, j]
        A = exp(-beta (1 - a))                                          images only, a = queries · keys
        A = ratio · exp(-beta (1 - a)) + (1 - ratio) · exp(-text_beta (1 - t))      mix = "after"
        A = exp(-beta (1 - ratio · a - (1 - ratio) · t))                            mix = "before"

    where t is the affinity of `text_queries` to the text keys. Mixing after the exponential is a mix of two
    (queries, classes) matrices, mixing before it one product of joined features: both keep memory at that
    size.

    Args:
        queries: image features, shape (queries, width).
        keys: image keys sorted by class, shape (keys, width).
        beta: sharpness; a number or tensor of shape () or, as a grid, (betas,).
        alpha: weight of the cache; a number or a tensor that broadcasts against (queries, classes).
        shots: keys per class, if equal for all; otherwise `offsets`.
        offsets: end of every class in `keys`, shape (classes,).
        init: logits to start from, shape (queries, classes).
        key_weights: weight of every key, shape (keys,).
        class_weights: weight of every class, shape (classes,).
        text_queries: query features in the space of the text keys, shape (queries, text width).
        text_keys: one text key per cached sample, shape (keys, text width).
        text_class_keys: instead, one per class, shape (classes, text width).
        text_beta: sharpness of the text affinity, default `beta`; only with ``mix="after"``.
        ratio: share of the image affinity; a number or a tensor of shape (), (queries, 1), (classes,) or
            (1, classes). With ``mix="after"`` also a function of the class sums of images and of texts to such
            a tensor.
        mix: ``after`` or ``before`` the exponential.
        backend: ``auto``, ``triton`` or ``torch``.

    Returns:
        Shape (queries, classes), or (betas, queries, classes) for a grid; float64 for float64 queries, else
        float32.

    Raises:
        KernelError: as `cache_class_sums`; a KernelValueError also where arguments contradict each other.

    Source: Zhang et al. 2022 (Tip-Adapter), eq. 5 to 7; Yang et al. 2024 (XMAdapter) for a text cache beside
    the image cache, whose exact fusion is not public: both readings are offered.
    """
    check_choice("mix", mix, MIXES)
    _check_text(queries, keys, text_queries, text_keys, text_class_keys, text_beta, mix)
    layout: dict[str, Any] = {
        "shots": shots,
        "offsets": offsets,
        "key_weights": key_weights,
        "backend": backend,
    }
    if text_queries is None and class_weights is None and not isinstance(alpha, Tensor):
        return cache_class_sums(queries, keys, beta=beta, init=init, alpha=alpha, **layout)
    classes = _check(queries, keys, shots, offsets, key_weights)
    _check_init(init, queries, classes)
    if text_queries is None:
        sums = cache_class_sums(queries, keys, beta=beta, **layout)
    elif mix == "before":
        if callable(ratio) and not isinstance(ratio, Tensor):
            raise KernelValueError(
                "`ratio` may be a function of the class sums only with mix='after', but mix is 'before', where there "
                "are no sums of images and of texts. Give a number or a tensor."
            )
        joined = _join(queries, keys, text_queries, text_keys, text_class_keys, shots, offsets, ratio)
        sums = cache_class_sums(*joined, beta=beta, **layout)
    else:
        text_beta = beta if text_beta is None else text_beta
        if text_keys is not None:
            text = cache_class_sums(text_queries, text_keys, beta=text_beta, **layout)
        else:
            assert text_class_keys is not None
            sizes = _class_sizes(keys, shots, offsets, key_weights, classes)
            text = cache_class_sums(
                text_queries, text_class_keys, beta=text_beta, key_weights=sizes, shots=1, backend=backend
            )
        image = cache_class_sums(queries, keys, beta=beta, **layout)
        sums = torch.lerp(text, image, _ratio_after(ratio, image, text))
    factor = alpha if class_weights is None else alpha * class_weights.to(sums.dtype)
    logits = sums * factor
    return logits if init is None else logits + init


def affinity_difference(
    queries: Tensor,
    keys: Tensor,
    text_queries: Tensor,
    text_keys: Tensor,
    *,
    beta: float,
    text_beta: float | None = None,
) -> Tensor:
    """How much image and text affinities disagree, a measure of how hard a query is.

    ``D[q] = mean_j |exp(-beta (1 - q·k_j)) - exp(-text_beta (1 - q'·k'_j))|``, without a gradient.

    Args:
        queries: shape (queries, width).
        keys: shape (keys, width).
        text_queries: shape (queries, text width).
        text_keys: one per key, shape (keys, text width).
        beta: sharpness of the image affinity.
        text_beta: of the text affinity, default `beta`.

    Returns:
        Shape (queries,), float64 for float64 queries, else float32.

    Raises:
        KernelError: as `cache_class_sums`.

    Source: Yang et al. 2024 (XMAdapter), which mines hard samples from cross-modal affinity differences; the
    mean absolute difference is this project's reading.
    """
    _check_features(queries, keys)
    check_tensors(queries, {"text_queries": text_queries, "text_keys": text_keys})
    _check_features(text_queries, text_keys, "text_queries", "text_keys")
    check_size("text_queries", text_queries, 0, queries.shape[0], "the queries")
    check_size("text_keys", text_keys, 0, keys.shape[0], "the keys")
    with torch.no_grad():
        return reference.difference(
            queries, keys, text_queries, text_keys, beta, beta if text_beta is None else text_beta
        )


def _betas(beta: float | Tensor, queries: Tensor) -> Tensor:
    if not isinstance(beta, Tensor):
        return torch.full((1,), beta, dtype=accumulator(queries.dtype), device=queries.device)
    check_tensors(queries, {"beta": beta})
    check_floating({"beta": beta})
    if beta.dim() > 1:
        raise KernelShapeError(
            f"`beta` must be a number or have shape () or (betas,), but has shape {tuple(beta.shape)}. "
            "Flatten it."
        )
    return beta.reshape(-1)


def _check_features(
    queries: Tensor, keys: Tensor, queries_name: str = "queries", keys_name: str = "keys"
) -> None:
    check_is_tensor(queries_name, queries)
    check_tensors(queries, {keys_name: keys})
    check_floating({queries_name: queries, keys_name: keys})
    check_rank(queries_name, queries, 2, "(queries, width)")
    check_rank(keys_name, keys, 2, "(keys, width)")
    check_size(keys_name, keys, 1, queries.shape[1], f"the width of `{queries_name}`")


def _check(
    queries: Tensor, keys: Tensor, shots: int | None, offsets: Tensor | None, key_weights: Tensor | None
) -> int:
    """Static checks; returns the number of classes."""
    _check_features(queries, keys)
    check_tensors(queries, {"offsets": offsets, "key_weights": key_weights})
    check_floating({"key_weights": key_weights})
    check_integer({"offsets": offsets})
    check_rank("key_weights", key_weights, 1, "(keys,)")
    check_size("key_weights", key_weights, 0, keys.shape[0], "the keys")
    if (shots is None) == (offsets is None):
        raise KernelValueError(
            "`shots` must be given for classes of equal size, or `offsets` for others, but not both and not "
            "neither. Use sort_by_class to get offsets."
        )
    if offsets is not None:
        check_rank("offsets", offsets, 1, "(classes,)")
        return offsets.shape[0]
    assert shots is not None
    if shots < 1 or keys.shape[0] % shots:
        raise KernelValueError(
            f"`shots` must be positive and divide the number of keys ({keys.shape[0]}), but is {shots}. "
            "Use `offsets` for classes of unequal size."
        )
    return keys.shape[0] // shots


def _check_init(init: Tensor | None, queries: Tensor, classes: int) -> None:
    check_tensors(queries, {"init": init})
    check_floating({"init": init})
    check_rank("init", init, 2, "(queries, classes)")
    check_size("init", init, 0, queries.shape[0], "the queries")
    check_size("init", init, 1, classes, "the classes")


def _check_text(
    queries: Tensor, keys: Tensor, text_queries: Tensor | None, text_keys: Tensor | None,
    text_class_keys: Tensor | None, text_beta: float | Tensor | None, mix: str,
) -> None:  # fmt: skip
    given = (text_keys is not None) + (text_class_keys is not None)
    if given != (text_queries is not None):
        raise KernelValueError(
            "`text_queries` must be given with exactly one of `text_keys` and `text_class_keys`, or none of the "
            f"three, but {given} of the key arguments came with text_queries="
            f"{'a tensor' if text_queries is not None else 'None'}. Give both sides of the text cache."
        )
    if text_beta is not None and (text_queries is None or mix == "before"):
        raise KernelValueError(
            "`text_beta` must come with a text cache and mix='after', but does not. Leave it out: before the "
            "exponential there is only one sharpness."
        )
    if text_queries is not None:
        check_tensors(queries, {"text_queries": text_queries})
        check_size("text_queries", text_queries, 0, queries.shape[0], "the queries")


def _class_sizes(
    keys: Tensor, shots: int | None, offsets: Tensor | None, key_weights: Tensor | None, classes: int
) -> Tensor:
    """Sum of the key weights of every class: what a text key that a whole class shares is worth."""
    dtype, count = accumulator(keys.dtype), keys.shape[0]
    weights = keys.new_ones(count, dtype=dtype) if key_weights is None else key_weights.to(dtype)
    labels = labels_of(count, offsets, shots or 0, keys.device)
    return weights.new_zeros(classes).index_add(0, labels, weights)


def _ratio_after(ratio: Ratio, image: Tensor, text: Tensor) -> Tensor:
    if callable(ratio) and not isinstance(ratio, Tensor):
        ratio = ratio(image, text)
    if isinstance(ratio, Tensor):
        return ratio.to(image.dtype)
    return torch.full((), ratio, dtype=image.dtype, device=image.device)


def _join(
    queries: Tensor, keys: Tensor, text_queries: Tensor, text_keys: Tensor | None,
    text_class_keys: Tensor | None,
    shots: int | None, offsets: Tensor | None, ratio: float | Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Joined features whose product is ``ratio · a + (1 - ratio) · t``."""
    labels = labels_of(keys.shape[0], offsets, shots or 0, keys.device)
    if text_keys is None:
        assert text_class_keys is not None
        text_keys = text_class_keys.index_select(0, labels)
    per_class = isinstance(ratio, Tensor) and ratio.dim() > 0 and ratio.shape[-1] > 1
    if isinstance(ratio, Tensor) and per_class:
        share = ratio.reshape(-1).index_select(0, labels).unsqueeze(1)
        return torch.cat((queries, text_queries), 1), torch.cat((share * keys, (1 - share) * text_keys), 1)
    return torch.cat((ratio * queries, (1 - ratio) * text_queries), 1), torch.cat((keys, text_keys), 1)
