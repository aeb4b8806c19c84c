"""Heads whose released code differs from the paper compute what the code does, written out here on its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from weft.core.few_shot import APET, APEConfig, APETConfig, LPPlusPlus, LPPlusPlusConfig, make_head
from weft.core.few_shot.grid import Grid, search_grid
from weft.core.few_shot.methods.ape import channel_order

CLASSES, SHOTS, WIDTH = 5, 3, 24
LABELS = torch.arange(CLASSES).repeat_interleave(SHOTS)


def task() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def unit(rows: int, near: torch.Tensor | float = 0.0) -> torch.Tensor:
        noise = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)
        return functional.normalize(noise + near, dim=-1)

    weights = unit(CLASSES)
    return weights, unit(CLASSES * SHOTS, 2 * weights[LABELS]), unit(9)


def test_ape_t_trains_whole_keys_that_keep_their_length_and_votes_without_divergence() -> None:
    weights, features, queries = task()
    alpha, beta, steps, kept = 1.3, 2.0, 20, 12
    channels = channel_order(weights, features, LABELS, 0.2)[:kept]
    residual = nn.Parameter(torch.zeros(CLASSES, kept, dtype=torch.float64))
    votes = nn.Parameter(torch.ones(len(LABELS), 1, dtype=torch.float64))
    values = functional.one_hot(LABELS, CLASSES).double()

    def logits(rows: torch.Tensor) -> torch.Tensor:
        keys, classes = features.clone(), weights.clone()
        keys[:, channels] = keys[:, channels] + residual.repeat_interleave(SHOTS, dim=0)
        classes[:, channels] = classes[:, channels] + residual
        return 100 * rows @ classes.T + alpha * (-(beta - beta * rows @ keys.T)).exp() @ (values * votes)

    optimizer = torch.optim.AdamW([residual, votes], lr=0.01, eps=1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(logits(features), LABELS).backward()
        optimizer.step()
        schedule.step()
    config = APETConfig(channel_share=kept / WIDTH, epochs=steps, learning_rate=0.01, alpha=alpha, beta=beta)
    head = APET(weights, config).fit(features, LABELS)
    torch.testing.assert_close(head.logits(queries), logits(queries).detach(), rtol=0, atol=1e-10)
    assert float(residual.detach().abs().max()) > 0.01
    assert set(head.selected) == {"alpha", "beta"}
    searched = APET(weights, config).fit(features, LABELS, (queries, LABELS[:9]))
    assert set(searched.selected) == {"alpha", "beta"}
    whole = (
        searched.selected["beta"] * (queries @ searched._used_keys().T - 1)
    ).exp() * searched.value_weights
    summed = torch.zeros(9, CLASSES, dtype=torch.float64).index_add(1, LABELS, whole)
    torch.testing.assert_close(
        searched.logits(queries), searched.zero_shot(queries) + searched.selected["alpha"] * summed
    )


@pytest.mark.parametrize("epochs", [1, 9, 10, 40])
def test_lp_plus_plus_trains_a_bias_and_adds_up_the_gradients_of_its_factors(epochs: int) -> None:
    weights, features, queries = task()
    count = len(features)
    torch.manual_seed(4)
    layer = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    # The head draws its biases from the same distribution; both get these.
    drawn = layer.bias.detach().clone()
    assert float(drawn.abs().max()) <= WIDTH**-0.5
    layer.weight.data = torch.stack([features[k == LABELS].sum(0) for k in range(CLASSES)])
    text = features @ weights.T
    first = torch.stack([text[k == LABELS, k].mean() for k in range(CLASSES)]).mean()
    factors = nn.Parameter(torch.full((CLASSES,), 250.0, dtype=torch.float64) * first)
    rate = 4 * count / torch.linalg.eigvalsh(features.T @ features).max()
    optimizer = torch.optim.SGD(layer.parameters(), float(rate), momentum=0.9)
    for epoch in range(epochs):
        optimizer.zero_grad()
        functional.cross_entropy(layer(features) + factors * text, LABELS).backward()
        optimizer.step()
        if (epoch + 1) % 10 == 0:
            factors.data -= count / (4 * text.square().sum(0).max()) * factors.grad
    expected = (layer(queries) + factors * (queries @ weights.T)).detach()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.init, "uniform_", lambda value, low, high: value.data.copy_(drawn))
        found = LPPlusPlus(weights, LPPlusPlusConfig(epochs=epochs)).fit(features, LABELS).logits(queries)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_lp_plus_plus_without_bias_and_with_the_gradient_at_hand_is_an_option() -> None:
    weights, features, queries = task()
    config = LPPlusPlusConfig(epochs=20, bias=False, blend_gradient="step")
    head = LPPlusPlus(weights, config).fit(features, LABELS)
    assert not head.bias.any()
    assert not torch.allclose(
        head.logits(queries),
        LPPlusPlus(weights, LPPlusPlusConfig(epochs=20)).fit(features, LABELS).logits(queries),
    )
    sizes = {"num_classes": 1000, "num_samples": 16_000, "width": 1024}
    assert LPPlusPlusConfig().trainable_parameters(**sizes) == 1_026_000
    assert config.trainable_parameters(**sizes) == 1_025_000


def test_the_grid_of_gamma_begins_at_zero() -> None:
    assert APEConfig().gammas() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert APEConfig(gamma_scale=1.0, gamma_steps=20).gammas()[-1] == pytest.approx(0.95)


def test_the_first_of_equal_choices_is_that_of_the_loops_of_ape() -> None:
    weights, features, queries = task()
    config = {"method": "ape", "search_steps": (5, 4), "gamma_steps": 3}
    with pytest.warns(UserWarning, match="chooses epochs and hyper-parameters on the test"):
        head = make_head(weights, config).fit(features, LABELS, (queries, LABELS[:9]), selected_on="paper")
    grids = (head.config.betas(), head.config.alphas(), head.config.gammas())
    best, chosen = -1, None
    for beta in grids[0]:
        for alpha in grids[1]:
            for gamma in grids[2]:
                head.selected = {"alpha": alpha, "beta": beta, "gamma": gamma}
                right = int((head.logits(queries).argmax(1) == LABELS[:9]).sum())
                if right > best:
                    best, chosen = right, head.selected
    with pytest.warns(UserWarning, match="chooses epochs and hyper-parameters on the test"):
        again = head.search(queries, LABELS[:9], selected_on="paper")
    assert again.selected == chosen
    assert again.tied > 1
    sums = torch.eye(2).repeat(2, 1, 1)
    grid = Grid([{"b": 1.0}, {"b": 2.0}], lambda rows: sums[:, rows], [0.5, 1.0], loops=("alpha", "b"))
    two = search_grid(torch.zeros(2, 2), torch.tensor([0, 1]), grid, ties="first")
    assert two.selected == {"b": 1.0, "alpha": 0.5}
