"""The family of heads: one contract for all that need no text encoder, and the formula of each."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot import (
    APE,
    APET,
    GDA,
    APEConfig,
    APETConfig,
    CLIPAdapter,
    CLIPAdapterConfig,
    CoOp,
    CrossModalProbe,
    CrossModalProbeConfig,
    GDAConfig,
    LinearProbe,
    LinearProbeConfig,
    LPPlusPlus,
    LPPlusPlusConfig,
    TaskRes,
    TaskResConfig,
    TipAdapter,
    TipAdapterConfig,
    ZeroShotHead,
    heads,
    load_head,
    make_head,
    parse_head,
)
from weft.core.few_shot.image_head import ImageHead
from weft.core.few_shot.methods.ape import channel_order, label_divergence

# Short trainings and coarse grids: the contract is about behaviour, not about scores.
QUICK: dict[str, dict[str, Any]] = {
    "ape": {"search_steps": (6, 4), "gamma_steps": 2},
    "ape_t": {"search_steps": (6, 4), "gamma_steps": 2, "epochs": 5},
    "clap": {"epochs": 20},
    "clip_adapter": {"epochs": 60, "learning_rate": 0.1, "ratio": 0.5},
    "cross_modal_probe": {"epochs": 5, "learning_rate": 1e-2, "rates": (1e-2,)},
    "gda": {},
    "linear_probe": {"penalties": (0.1, 1.0)},
    "lp_plus_plus": {"epochs": 100},
    "multi_modal_adapter": {"epochs": 60, "hidden_size": 32, "bottleneck_size": 16, "ratio": 0.5},
    "task_res": {"epochs": 30, "learning_rate": 1e-2},
    "tip_adapter": {"search_steps": (6, 4)},
    "tip_adapter_f": {"search_steps": (6, 4), "epochs": 5},
    "xmadapter": {"search_steps": (6, 4), "epochs": 5},
    "zero_shot": {},
}
FAMILY = sorted(name for name, config in heads().items() if not issubclass(config.head, (CoOp, ImageHead)))


def quick(method: str) -> dict[str, Any]:
    return {"method": method, **QUICK[method]}


@pytest.mark.parametrize("method", FAMILY)
def test_a_head_learns_saves_repeats_and_explains(make_task, tmp_path, method: str) -> None:
    weights, features, labels, queries, truth = make_task(
        classes=8, shots=8, noise=1.0, names=2.0, queries=40
    )
    validation = (queries[::2], truth[::2])
    head = make_head(weights, quick(method)).fit(features, labels, validation, seed=1)
    logits = head.logits(queries[1::2])
    assert logits.shape == (160, 8)
    assert not logits.requires_grad
    right = float((logits.argmax(1) == truth[1::2]).float().mean())
    zero = float((ZeroShotHead(weights).logits(queries[1::2]).argmax(1) == truth[1::2]).float().mean())
    assert zero < 0.8
    assert right > zero + 0.02 if method != "zero_shot" else right == zero
    again = make_head(weights, quick(method)).fit(features, labels, validation, seed=1)
    assert torch.equal(again.logits(queries), head.logits(queries))
    head.calibrate(*validation)
    loaded = load_head(head.save(tmp_path))
    assert torch.equal(loaded.probabilities(queries), head.probabilities(queries))
    torch.testing.assert_close(
        head.logits(queries[1::2])[:5], head.logits(queries[1:10:2]), rtol=1e-5, atol=1e-4
    )
    why = head.explain(queries[:3], top=4)
    assert [one.predicted for one in why] == head.logits(queries[:3]).argmax(1).tolist()
    assert all(len(one.votes) == (4 if hasattr(head, "cache") else 0) for one in why)
    for vote in why[0].votes:
        assert vote.label == int(labels[vote.sample])
    assert all(value.grad is None for value in head.parameters())


@pytest.mark.parametrize("method", FAMILY)
def test_the_count_of_a_configuration_is_what_training_changes(make_task, method: str) -> None:
    weights, features, labels, *_ = make_task(classes=5, shots=3)
    config = parse_head(quick(method))
    counted = config.trainable_parameters(num_classes=5, num_samples=15, width=24)
    seen: list[int] = []
    head = make_head(weights, config)
    step = torch.optim.Optimizer.__init__

    def spy(self: Any, params: Any, defaults: Any) -> None:
        params = list(params)
        seen.append(sum(value.numel() for value in params))
        step(self, params, defaults)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Optimizer, "__init__", spy)
        head.fit(features, labels)
    expected = counted if seen or method != "lp_plus_plus" else 0
    assert (seen[0] if seen else 0) == expected
    if method == "lp_plus_plus":
        assert counted == head.weight.numel() + head.blend.numel() + head.bias.numel()


@pytest.mark.parametrize("method", sorted(set(FAMILY) - {"linear_probe", "lp_plus_plus"}))
def test_a_class_without_samples_is_left_to_its_name(make_task, method: str) -> None:
    weights, features, labels, queries, _ = make_task(noise=0.3)
    seen = labels != 4
    head = make_head(weights, quick(method)).fit(features[seen], labels[seen], allow_missing=True)
    logits = head.logits(queries)
    assert bool(torch.isfinite(logits).all())
    if method in {"tip_adapter", "tip_adapter_f", "xmadapter", "ape", "gda"}:
        torch.testing.assert_close(logits[:, 4], ZeroShotHead(weights).logits(queries)[:, 4])


def test_published_sizes_of_the_family_on_imagenet() -> None:
    sizes = {"num_classes": 1000, "num_samples": 16_000, "width": 1024}
    found = {name: config().trainable_parameters(**sizes) for name, config in heads().items()}  # type: ignore[call-arg]
    assert found["clip_adapter"] == 524_288
    assert found["task_res"] == 1_024_000
    assert found["coop"] == 8_192
    assert found["cocoop"] == 100_928
    assert found["cross_modal_probe"] == 1_024_000
    assert found["zero_shot"] == found["tip_adapter"] == found["ape"] == found["gda"] == 0
    share = APETConfig(channel_share=500 / 1024)
    assert share.trainable_parameters(**sizes) == 516_000
    assert heads()["cocoop"]().trainable_parameters(**{**sizes, "width": 512}) == 35_360  # type: ignore[call-arg]


def test_clip_adapter_starts_with_a_share_of_the_feature(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    head = CLIPAdapter(weights, CLIPAdapterConfig(ratio=0.0, epochs=2)).fit(features, labels)
    torch.testing.assert_close(head.logits(queries), ZeroShotHead(weights).logits(queries))
    head = CLIPAdapter(weights, CLIPAdapterConfig(epochs=1)).fit(features, labels)
    first, _, second, _ = head.adapter
    raw = 7.3 * queries
    inner = torch.relu(torch.relu(raw @ first.weight.T) @ second.weight.T)
    expected = 100 * functional.normalize(0.2 * inner + 0.8 * raw, dim=-1) @ weights.T
    torch.testing.assert_close(head.logits(queries), expected, rtol=1e-4, atol=1e-4)


def test_classes_never_seen_are_left_to_their_names(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    old = labels < 3
    for method in FAMILY:
        head = make_head(weights[:3], quick(method)).fit(features[old], labels[old])
        new = head.transfer_logits(queries, weights[3:])
        zero = 100 * queries @ weights[3:].T
        # These two change features of images, whatever the classes.
        names_alone = method not in {"clip_adapter", "multi_modal_adapter"}
        assert torch.allclose(new, zero, atol=1e-4) == names_alone, (method, (new - zero).abs().max())


def test_task_res_starts_as_zero_shot(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    head = TaskRes(weights, TaskResConfig(epochs=0)).fit(features, labels)
    torch.testing.assert_close(head.logits(queries), ZeroShotHead(weights).logits(queries))


def test_gda_is_the_closed_form(make_task) -> None:
    weights, features, labels, queries, _ = (v.double() if v.is_floating_point() else v for v in make_task())
    head = GDA(weights, GDAConfig(alpha=0.7)).fit(features, labels)
    means = torch.stack([features[labels == c].mean(0) for c in range(6)])
    covariance = torch.cov((features - means[labels]).T)
    m, d = features.shape
    precision = d * torch.linalg.pinv(
        (m - 1) * covariance + covariance.trace() * torch.eye(d, dtype=torch.float64)
    )
    bias = math.log(1 / 6) - 0.5 * torch.einsum("cd,de,ce->c", means, precision, means)
    expected = 100 * queries @ weights.T + 0.7 * (queries @ precision @ means.T + bias)
    torch.testing.assert_close(head.logits(queries), expected)


def test_gda_of_one_sample_per_class_is_finite(make_task) -> None:
    weights, features, labels, queries, truth = make_task(shots=1)
    head = GDA(weights).fit(features, labels, (queries, truth))
    assert bool(torch.isfinite(head.logits(queries)).all())


def test_the_linear_probe_stands_where_its_gradient_is_zero(make_task) -> None:
    weights, features, labels, *_ = (v.double() if v.is_floating_point() else v for v in make_task())
    head = LinearProbe(weights, LinearProbeConfig(penalty=0.5)).fit(features, labels)
    error = (head.logits(features).softmax(-1) - functional.one_hot(labels, 6)).T
    gradient = error @ features + 0.5 * head.linear.weight
    assert float(gradient.abs().max()) < 1e-4
    assert float(error.sum(1).abs().max()) < 1e-4


def test_the_cross_modal_probe_starts_from_names_and_can_end_halfway(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    whole = CrossModalProbe(weights, CrossModalProbeConfig(epochs=3)).fit(features, labels)
    half = CrossModalProbe(weights, CrossModalProbeConfig(epochs=3, zero_shot_share=0.5)).fit(
        features, labels
    )
    expected = (whole.logits(queries) + ZeroShotHead(weights).logits(queries)) / 2
    torch.testing.assert_close(half.logits(queries), expected, rtol=1e-4, atol=1e-3)


def test_lp_plus_plus_descends_with_steps_from_the_data(make_task) -> None:
    weights, features, labels, *_ = make_task(noise=2.0)

    def loss(epochs: int) -> float:
        head = LPPlusPlus(weights, LPPlusPlusConfig(epochs=epochs, momentum=0.0)).fit(features, labels)
        return float(functional.cross_entropy(head.logits(features), labels))

    losses = [loss(epochs) for epochs in (0, 1, 5, 20, 60)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]


def test_ape_weighs_keys_as_the_worked_example_does() -> None:
    def rows(values: list[list[float]]) -> torch.Tensor:
        return functional.normalize(torch.tensor(values, dtype=torch.float64), dim=-1)

    keys = rows([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0.6, 0.8]])
    weights = rows([[0.9, 0.1, 0.2], [0.1, 0.9, 0.3]])
    divergence = label_divergence(keys @ weights.T, torch.tensor([0, 0, 1, 1]))
    expected = torch.tensor([0.506673, 0.868687, 0.519646, 0.641229], dtype=torch.float64)
    torch.testing.assert_close(divergence, expected, atol=1e-6, rtol=0)
    weighted = torch.tensor([1.051973, 1.090753, 1.053338, 1.066223], dtype=torch.float64)
    torch.testing.assert_close((0.1 * divergence).exp(), weighted, atol=1e-6, rtol=0)


def test_ape_with_all_channels_and_plain_votes_is_tip_adapter(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    head = APE(weights, APEConfig(channel_share=1.0, gamma=0.0)).fit(features, labels)
    plain = TipAdapter(weights, TipAdapterConfig()).fit(features, labels)
    torch.testing.assert_close(head.logits(queries), plain.logits(queries), rtol=1e-5, atol=1e-5)


def test_the_order_of_channels_is_that_of_the_loop_over_pairs(make_task) -> None:
    weights, features, labels, *_ = (
        v.double() if v.is_floating_point() else v for v in make_task(classes=4, shots=3)
    )
    members = [torch.cat([weights[c : c + 1], features[labels == c]]) for c in range(4)]
    similarity = torch.zeros(24, dtype=torch.float64)
    for first in range(4):
        for second in range(4):
            if first != second:
                similarity += (members[first].sum(0) * members[second].sum(0)) / (4 * 3 * 16)
    criterion = 0.7 * similarity - 0.3 * weights.var(0)
    assert torch.equal(channel_order(weights, features, labels, 0.7), criterion.argsort(stable=True))


def test_ape_t_starts_as_ape_and_loses_classes_with_their_residuals(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    start = APET(weights, APETConfig(epochs=0, keys="pruned", similarity_weight=0.7)).fit(features, labels)
    plain = APE(weights).fit(features, labels)
    torch.testing.assert_close(start.logits(queries), plain.logits(queries), rtol=1e-5, atol=1e-4)
    for keys in ("pruned", "whole"):
        head = APET(weights, APETConfig(epochs=3, learning_rate=0.01, gamma=0.0, keys=keys)).fit(
            features, labels
        )
        before = head.logits(queries)
        head.remove_classes([2])
        torch.testing.assert_close(head.logits(queries), before[:, [0, 1, 3, 4, 5]], rtol=1e-5, atol=1e-4)
    with pytest.raises(FewShotError, match="APET must be fitted first"):
        APET(weights).remove_classes([2])
    with pytest.raises(FewShotError, match="`add_classes` must be called on a head that keeps all channels"):
        plain.add_classes(weights, features, labels)
