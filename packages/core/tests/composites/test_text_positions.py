"""BART needs learned positions for the text alone, however many visual tokens follow it."""

import pytest
import torch

from weft.core import attach
from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig
from weft.core.testing.backbones import bart_config


def make(positions):
    torch.manual_seed(0)
    language = bart_config(
        vocab_size=60, max_position_embeddings=positions, init_std=0.3, forced_eos_token_id=None
    )
    return VisualSeq2Seq(VisualSeq2SeqConfig(language, feature_size=12, num_visual_tokens=36)).eval()


@torch.no_grad()
@pytest.mark.parametrize("prompt", [False, True], ids=["plain", "prompt"])
def test_a_table_as_long_as_the_text_is_enough(prompt):
    short, long = make(8), make(64)
    state = long.state_dict()
    for name, value in short.state_dict().items():
        state[name] = (
            torch.cat([value, torch.full_like(state[name][len(value) :], torch.nan)])
            if (value.shape != state[name].shape)
            else value
        )
    long.load_state_dict(state)
    if prompt:
        for model in (short, long):
            torch.manual_seed(1)
            attach(model, {"method": "prompt", "length": 5})
    batch = {"input_ids": torch.randint(3, 60, (2, 8)), "visual_features": torch.randn(2, 2, 49, 12)}
    target = torch.randint(3, 60, (2, 4))
    found = short(**batch, decoder_input_ids=target).logits
    assert found.isfinite().all()
    torch.testing.assert_close(found, long(**batch, decoder_input_ids=target).logits)
    options = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}
    assert torch.equal(short.generate(**batch, **options), long.generate(**batch, **options))
