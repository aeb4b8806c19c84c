"""The Multi-Modal Adapter against torch's own attention over the whole sequence of names and image."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from weft.core.errors import ConfigError
from weft.core.few_shot import MultiModalAdapter, MultiModalAdapterConfig, parse_head

CLASSES, WIDTH, ROWS = 5, 12, 7


def unit(*shape: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def fitted(links: str) -> MultiModalAdapter:
    config = MultiModalAdapterConfig(
        hidden_size=8,
        num_heads=2,
        bottleneck_size=6,
        links=links,
        epochs=3,
        logit_scale=10,
        cross_bias=0.7,  # type: ignore[arg-type]
    )
    labels = torch.arange(CLASSES)
    return MultiModalAdapter(unit(CLASSES, WIDTH, seed=0), config).fit(unit(CLASSES, WIDTH, seed=1), labels)


@pytest.mark.parametrize("links", ["all", "cross"])
def test_scores_are_those_of_an_attention_over_names_and_image(links: str) -> None:
    head, names = fitted(links), unit(4, WIDTH, seed=3)
    attention = nn.MultiheadAttention(8, 2)
    with torch.no_grad():
        attention.in_proj_weight.copy_(head.query_key_value.weight)
        attention.in_proj_bias.copy_(head.query_key_value.bias)
        attention.out_proj.load_state_dict(head.output.state_dict())
    images = unit(ROWS, WIDTH, seed=2)
    for weights, found in (
        (head.class_weights, head.logits(images)),
        (names, head.transfer_logits(images, names)),
    ):
        count = len(weights)
        across = torch.zeros(count + 1, count + 1, dtype=torch.bool)
        across[:count, count] = across[count, :count] = True
        mask = (
            0.7 * across.float()
            if links == "all"
            else torch.zeros(across.shape).masked_fill(~across, -torch.inf)
        )
        sequence = torch.cat([weights[:, None].expand(-1, ROWS, -1), images[None]])
        with torch.no_grad():
            low = head.down(sequence)
            moved = functional.normalize(head.up(attention(low, low, low, attn_mask=mask)[0]), dim=-1)
        new = functional.normalize(0.2 * moved + 0.8 * sequence, dim=-1)
        expected = 10 * torch.einsum("rd,crd->rc", new[count], new[:count])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_score_does_not_depend_on_how_many_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    head, images = fitted("all"), unit(ROWS, WIDTH, seed=2)
    expected = head.logits(images)
    monkeypatch.setattr("weft.core.few_shot.methods.multi_modal_adapter._PAIRS", 2 * CLASSES)
    torch.testing.assert_close(head.logits(images), expected)


def test_a_ratio_of_nothing_is_zero_shot() -> None:
    config = MultiModalAdapterConfig(ratio=0, epochs=0, logit_scale=10)
    head = MultiModalAdapter(unit(CLASSES, WIDTH, seed=0), config).fit(
        unit(CLASSES, WIDTH, seed=1), torch.arange(CLASSES)
    )
    images = unit(ROWS, WIDTH, seed=2)
    torch.testing.assert_close(head.logits(images), head.zero_shot(images))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`num_heads` must divide `hidden_size` \(128\), but is 3"):
        parse_head({"method": "multi_modal_adapter", "num_heads": 3})
