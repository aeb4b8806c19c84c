"""XMAdapter: golden numbers, what it becomes when its parts are off, its ratio, its hard samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot import (
    TipAdapter,
    TipAdapterConfig,
    TipAdapterF,
    TipAdapterFConfig,
    XMAdapter,
    XMAdapterConfig,
    ZeroShotHead,
    load_head,
)
from weft.kernels import affinity_difference, cache_logits

KINDS = ["class", "residual", "mixed"]


def unit(rows: list[list[float]]) -> torch.Tensor:
    return functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=-1)


def test_the_worked_example_of_two_caches_holds_to_six_places() -> None:
    keys, text = (
        unit([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0.6, 0.8]]),
        unit([[0.9, 0.1, 0.2], [0.7, 0.5, 0.2], [0.1, 0.9, 0.3], [0.2, 0.7, 0.6]]),
    )
    weights, query = unit([[0.9, 0.1, 0.2], [0.1, 0.9, 0.3]]), unit([[0.7, 0.6, 0.2]])

    class Given(XMAdapter):
        """The text keys of the example, which no network makes."""

        def _text_sides(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return features, text

    config = XMAdapterConfig(text_keys="mixed", ratio_mode="fixed", ratio=0.5, epochs=0)
    head = Given(weights, config).fit(keys, torch.tensor([0, 0, 1, 1]))
    expected = torch.tensor([[84.688754, 74.818151]], dtype=torch.float64)
    torch.testing.assert_close(head.logits(query), expected, atol=1e-6, rtol=0)
    (why,) = head.explain(query, top=4)
    near = {vote.sample: vote.affinities["text"] for vote in why.votes}
    assert near == pytest.approx({0: 0.402221, 1: 0.979184, 2: 0.245293, 3: 0.273145}, abs=1e-6)
    fused = {vote.sample: vote.vote for vote in why.votes}
    assert fused == pytest.approx({0: 0.322087, 1: 0.925834, 2: 0.190178, 3: 0.178932}, abs=1e-6)
    difference = affinity_difference(query, keys, query, text, beta=5.5)
    assert float(difference) == pytest.approx(0.141405, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_share_of_one_is_tip_adapter_to_the_bit(make_task, kind: str, dtype: torch.dtype) -> None:
    weights, features, labels, queries, _ = (v.to(dtype) if v.is_floating_point() else v for v in make_task())
    config = XMAdapterConfig(
        text_keys=kind, ratio_mode="fixed", ratio=1.0, hard_weight=0, epochs=0, alpha=1.17
    )
    head = XMAdapter(weights, config).fit(features, labels)
    plain = TipAdapter(weights, TipAdapterConfig(alpha=1.17)).fit(features, labels)
    assert torch.equal(head.logits(queries), plain.logits(queries))


def test_without_a_text_cache_training_is_that_of_tip_adapter_f_to_the_bit(make_task) -> None:
    weights, features, labels, queries, truth = make_task()
    off = XMAdapter(weights, XMAdapterConfig(text_keys="off", epochs=3))
    trained = TipAdapterF(weights, TipAdapterFConfig(epochs=3))
    for head in (off, trained):
        head.fit(features, labels, (queries, truth), seed=5)
    assert torch.equal(off.cache.keys, trained.cache.keys)
    assert off.selected == trained.selected
    assert torch.equal(off.logits(queries), trained.logits(queries))


def test_an_alpha_of_zero_is_zero_shot_to_the_bit(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    head = XMAdapter(weights, XMAdapterConfig(alpha=0, epochs=1)).fit(features, labels)
    assert torch.equal(head.logits(queries), ZeroShotHead(weights).logits(queries))


def test_residual_keys_start_as_the_class_names(make_task) -> None:
    weights, features, labels, queries, _ = make_task(shots=3)
    config = XMAdapterConfig(text_keys="residual", ratio_mode="fixed", ratio=0.0, epochs=0)
    head = XMAdapter(weights, config).fit(features, labels)
    sums = head.logits(queries) - head.zero_shot(queries)
    expected = 3 * torch.exp(-5.5 * (1 - queries @ weights.T))
    torch.testing.assert_close(sums, expected, atol=2e-4, rtol=0)
    zero = ZeroShotHead(weights).logits(queries)
    assert torch.equal(head.logits(queries).argmax(1), zero.argmax(1))


def test_keys_that_a_class_shares_count_as_often_as_it_has_samples(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    uneven = torch.cat([torch.arange(4), torch.arange(8, 24)])
    features, labels = features[uneven], labels[uneven].masked_fill(labels[uneven] == 1, 2)
    config = XMAdapterConfig(ratio_mode="fixed", ratio=0.3, epochs=0, alpha=1.0)
    head = XMAdapter(weights, config).fit(features, labels, allow_missing=True)
    text_queries, class_keys = head._text_sides(queries)
    gathered = class_keys[head.cache.labels.long()]
    expected = cache_logits(
        queries,
        head.cache.keys,
        beta=5.5,
        offsets=head.cache.counts().cumsum(0),
        init=head.zero_shot(queries),
        text_queries=text_queries,
        text_keys=gathered,
        ratio=0.3,
    )
    torch.testing.assert_close(head.logits(queries), expected, atol=1e-4, rtol=1e-5)
    assert int(head.cache.counts()[1]) == 0
    assert torch.equal(head.logits(queries)[:, 1], head.zero_shot(queries)[:, 1])


def test_the_dynamic_ratio_trusts_the_cache_that_is_surer(make_task) -> None:
    weights, features, labels, _, _ = make_task()
    head = XMAdapter(weights, XMAdapterConfig(epochs=0)).fit(features, labels)
    sharp = torch.tensor([[4.0, 0, 0, 0, 0, 0], [0.1, 0, 0, 0, 0, 0]])
    even = torch.full((2, 6), 2.0)
    first, second = head._ratio(sharp, even).flatten().tolist()
    assert first > second > 0.5
    assert head._ratio(even, even).flatten().tolist() == pytest.approx([0.5, 0.5])
    peaked = (10 * sharp[0] / 4).softmax(0)
    entropy = -float((peaked * peaked.log()).sum())
    assert float(head._confidence(sharp)[0]) == pytest.approx(1 - entropy / math.log(6), abs=1e-6)


@pytest.mark.parametrize("difference", ["class", "mean"])
@pytest.mark.parametrize("weighting", ["linear", "focal"])
def test_samples_on_which_the_modalities_differ_weigh_more(
    make_task, difference: str, weighting: str
) -> None:
    weights, features, labels, queries, _ = make_task()
    config = XMAdapterConfig(difference=difference, weighting=weighting, hard_weight=2.0, epochs=0)
    head = XMAdapter(weights, config).fit(features, labels)
    image, text = (head._mixed(queries, 5.5, ratios=torch.tensor(share)) for share in (1.0, 0.0))
    intensity = head._intensity(queries, image, text)
    far = head._difference(queries, image, text)
    assert float(intensity.mean()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(intensity.argsort(), far.argsort())
    assert float(intensity.max() - intensity.min()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["dynamic", "learned", "fixed"])
def test_every_form_learns_and_comes_back_from_disk(make_task, tmp_path, kind: str, mode: str) -> None:
    weights, features, labels, queries, truth = make_task(noise=1.5)
    config = XMAdapterConfig(
        text_keys=kind, ratio_mode=mode, epochs=4, learning_rate=0.01, search_steps=(5, 3), ratio_steps=3,
        select_epoch=False,
    )  # fmt: skip
    head = XMAdapter(weights, config).fit(features, labels, (queries, truth))
    counted = sum(
        value.numel()
        for name, value in head.named_parameters()
        if name.startswith("text.") or name == "cache.keys" or (name == "theta" and mode == "learned")
    )
    assert config.trainable_parameters(num_classes=6, num_samples=24, width=24) == counted
    untrained = XMAdapter(weights, config.model_copy(update={"epochs": 0})).fit(features, labels)
    trained = {
        name
        for name, value in head.named_parameters()
        if not torch.equal(value, untrained.get_parameter(name))
    }
    assert "cache.keys" in trained
    assert ("theta" in trained) == (mode == "learned")
    assert any(name.startswith("text.") for name in trained) == (kind != "mixed")
    assert torch.equal(load_head(head.save(tmp_path)).logits(queries), head.logits(queries))
    assert ("ratio" in head.selected) == (mode == "fixed")


def test_the_search_of_the_ratio_evaluates_what_the_head_computes(make_task) -> None:
    weights, features, labels, queries, truth = make_task(noise=2.0)
    config = XMAdapterConfig(
        ratio_mode="fixed", epochs=0, search_steps=(6, 4), ratio_steps=5, search_scale=(9, 9)
    )
    head = XMAdapter(weights, config).fit(features, labels)
    right = []
    for ratio in (0.0, 0.25, 0.5, 0.75, 1.0):
        for beta in config.betas():
            for alpha in config.alphas():
                head.selected = {"alpha": alpha, "beta": beta, "ratio": ratio}
                right.append(float((head.logits(queries).argmax(1) == truth).float().mean()))
    found = head.search(queries, truth)
    assert found.evaluated == len(right) == 120
    assert found.accuracy == pytest.approx(100 * max(right), abs=1e-4)


def test_prompt_learned_features_make_the_text_keys(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    prompts = functional.normalize(weights + 0.5 * torch.randn(weights.shape), dim=-1)
    plain, prompted = (XMAdapter(weights, XMAdapterConfig(epochs=0)) for _ in range(2))
    prompted.use_prompts(prompts)
    plain.fit(features, labels), prompted.fit(features, labels)
    assert not torch.equal(plain.logits(queries), prompted.logits(queries))
    assert torch.equal(plain.zero_shot(queries), prompted.zero_shot(queries))
    with pytest.raises(FewShotError, match=r"`prompt_weights` must have one row per class \(6\), but have 5"):
        plain.use_prompts(prompts[:5])


def test_classes_come_and_go_with_their_text_keys(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    config = XMAdapterConfig(epochs=0, ratio_mode="fixed", ratio=0.4)
    old = labels < 4
    head = XMAdapter(weights[:4], config).fit(features[old], labels[old])
    head.add_classes(weights[4:], features[~old], labels[~old])
    whole = XMAdapter(weights, config).fit(features, labels)
    torch.testing.assert_close(head.logits(queries), whole.logits(queries))
    head.remove_classes([0])
    assert torch.equal(head.prompt_weights, weights[1:])
    torch.testing.assert_close(head.logits(queries), whole.logits(queries)[:, 1:])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"text_keys": "residual", "ratio_mode": "learned"}, 17_040_449),
        ({"text_keys": "residual", "ratio_mode": "learned", "train_keys": False}, 656_449),
        ({"train_keys": False}, 2 * 1024 * 256),
        ({"text_keys": "off"}, 16_384_000),
    ],
)
def test_parameters_are_counted_before_anything_is_built(options: dict, expected: int) -> None:
    config = XMAdapterConfig(**options)
    assert config.trainable_parameters(num_classes=1000, num_samples=16_000, width=1024) == expected
