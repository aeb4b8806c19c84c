"""CLAP against its formula, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from weft.core.few_shot import CLAP, CLAPConfig, ZeroShotConfig, ZeroShotHead
from weft.core.few_shot.samples import as_samples

CLASSES, WIDTH = 3, 8


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Class weights, features of two views of six samples, and their labels."""
    generator = torch.Generator().manual_seed(0)
    weights = functional.normalize(torch.randn(CLASSES, WIDTH, generator=generator), dim=-1)
    features = functional.normalize(torch.randn(2, 6, WIDTH, generator=generator), dim=-1)
    return weights, features, torch.tensor([0, 0, 0, 1, 1, 2])


def fitted(drawn: tuple[torch.Tensor, ...], **settings: object) -> CLAP:
    weights, features, labels = drawn
    settings = {"logit_scale": 10.0, "epochs": 200, "weight_decay": 0.0, **settings}
    return CLAP(weights, CLAPConfig(**settings)).fit(features, labels)  # type: ignore[arg-type, return-value]


def test_it_starts_as_zero_shot(drawn: tuple[torch.Tensor, ...]) -> None:
    head = fitted(drawn, epochs=0)
    zero = ZeroShotHead(drawn[0], ZeroShotConfig(logit_scale=10.0))
    torch.testing.assert_close(head.logits(drawn[1][0]), zero.logits(drawn[1][0]))


@pytest.mark.parametrize("constraint", ["class", "mean", "none"])
def test_a_class_is_held_by_the_probability_that_zero_shot_gives_to_its_samples(
    drawn: tuple[torch.Tensor, ...], constraint: str
) -> None:
    weights, features, labels = drawn
    head = CLAP(weights, CLAPConfig(logit_scale=10.0, constraint=constraint))  # type: ignore[arg-type]
    found = head.multipliers(as_samples(features, labels, weights, num_classes=CLASSES))
    probabilities = (10 * features @ weights.T).softmax(-1)
    by_hand = torch.stack([probabilities[:, labels == c, c].mean() for c in range(CLASSES)])
    expected = {"class": by_hand, "mean": by_hand.mean().expand(CLASSES), "none": torch.zeros(CLASSES)}
    torch.testing.assert_close(found, expected[constraint])


def test_its_weights_are_where_the_gradient_of_the_stated_loss_vanishes(
    drawn: tuple[torch.Tensor, ...],
) -> None:
    weights, features, labels = drawn
    head = fitted((weights, features[:1], labels), optimizer="adam", learning_rate=0.05, epochs=1500)
    held = head.multipliers(as_samples(features[:1], labels, weights, num_classes=CLASSES))
    prototypes = head.prototypes.detach().clone().requires_grad_(True)
    logits = 10 * features[0] @ functional.normalize(prototypes, dim=-1).T
    pull = (held * (prototypes - weights).square().sum(-1)).mean()
    (functional.cross_entropy(logits, labels) + pull).backward()
    assert prototypes.grad is not None
    assert held.argmin() == 2  # so weakly held, on one sample, that it takes long to come to rest
    assert prototypes.grad[:2].abs().max() < 1e-4


def test_what_is_held_stays_nearer_to_its_name(drawn: tuple[torch.Tensor, ...]) -> None:
    moved = {
        kind: (fitted(drawn, constraint=kind).prototypes - drawn[0]).norm() for kind in ("class", "none")
    }
    assert moved["class"] < moved["none"]


def test_a_class_without_samples_stays_where_it_was(drawn: tuple[torch.Tensor, ...]) -> None:
    weights, features, labels = drawn
    head = CLAP(weights, CLAPConfig(epochs=0))
    held = head.multipliers(as_samples(features[:, :5], labels[:5], weights, num_classes=CLASSES))
    assert held[2] == 0
