"""Nearest keys: exact sums of what was looked at, true bounds, and the answer of the whole cache."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot import TipAdapter, TipAdapterConfig
from weft.core.few_shot.keys import KeyCache
from weft.core.few_shot.retrieval import NearestKeys, certain


def many(classes: int, shots: int, width: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, width, generator=generator)
    labels = torch.arange(classes).repeat_interleave(shots)
    keys = functional.normalize(means[labels] + torch.randn(len(labels), width, generator=generator), dim=-1)
    return functional.normalize(means, dim=-1), keys, labels


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("neighbours", [3, 40, 1000])
def test_the_bound_holds_and_all_keys_give_the_exact_sum(neighbours: int, weighted: bool) -> None:
    _, keys, labels = many(6, 30)
    labels = labels.masked_fill(labels == 1, 0)
    cache = KeyCache.of(keys, labels, 6)
    weights = cache.balance() if weighted else None
    queries = functional.normalize(torch.randn(9, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    exact = cache.logits(queries, 5.5, key_weights=weights)
    found = NearestKeys(cache).class_sums(queries, 5.5, neighbours, weights)
    assert bool((found.sums <= exact + 1e-5).all())
    assert bool((exact <= found.sums + found.bounds + 1e-5).all())
    assert bool((found.bounds > 0).any()) == (neighbours < 180)
    if neighbours >= 180:
        torch.testing.assert_close(found.sums, exact, rtol=1e-5, atol=1e-5)


def test_an_answer_is_certain_only_beyond_the_slack() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [3.0, 2.5, 0.0], [3.0, 1.0, 0.0]])
    slack = torch.tensor([[9.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.5]])
    assert certain(logits, slack).tolist() == [True, False, False]


def test_a_cache_beyond_the_limit_answers_as_the_whole_cache() -> None:
    weights, keys, labels = many(8, 50)
    queries = functional.normalize(torch.randn(200, 16, generator=torch.Generator().manual_seed(2)), dim=-1)
    options = {"alpha": 3.0, "beta": 5.5, "logit_scale": 1.0}
    whole = TipAdapter(weights, TipAdapterConfig(**options)).fit(keys, labels)
    part = TipAdapter(weights, TipAdapterConfig(**options, exact_limit=100, neighbours=8)).fit(keys, labels)
    assert torch.equal(part.logits(queries).argmax(1), whole.logits(queries).argmax(1))
    assert not torch.allclose(part.logits(queries), whole.logits(queries))
    first = part._nearest
    part.remove_classes([3])
    whole.remove_classes([3])
    assert torch.equal(part.logits(queries).argmax(1), whole.logits(queries).argmax(1))
    assert part._nearest is not first


def test_compressed_keys_find_nearly_all_of_the_mass() -> None:
    _, keys, labels = many(10, 1000)
    cache = KeyCache.of(keys, labels, 10)
    queries = keys[::500]
    exact = cache.logits(queries, 20.0)
    found = NearestKeys(cache, "ivf_pq").class_sums(queries, 20.0, 2000)
    assert bool((found.sums <= exact + 1e-4).all())
    assert float(found.sums.sum() / exact.sum()) > 0.8
    assert torch.equal(found.sums.argmax(1), exact.argmax(1))


def test_indexes_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, keys, labels = many(4, 5)
    with pytest.raises(FewShotError, match="`kind` may be 'ivf_pq' from 9,984 keys on, but there are 20"):
        NearestKeys(KeyCache.of(keys, labels, 4), "ivf_pq")
    with pytest.raises(FewShotError, match="`cache` must hold keys of length one, but one has length 2"):
        NearestKeys(KeyCache.of(2 * keys, labels, 4))
    load = builtins.__import__

    def without_faiss(name: str, *rest: Any, **more: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(FewShotError, match=r"pip install faiss-cpu"):
        NearestKeys(KeyCache.of(keys, labels, 4))
