"""The loss of written answers is the model's own, whether answers stand apart or behind their prompt."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from weft.train.objectives import objective

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def llama():
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=30, initializer_range=0.5))


def t5():
    config = T5Config(
        vocab_size=30,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        dropout_rate=0,
    )
    return T5ForConditionalGeneration(config)


class Wrapped(torch.nn.Module):
    """What data parallelism makes of a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapped], ids=["plain", "wrapped"])
@pytest.mark.parametrize("build", [llama, t5])
def test_the_loss_of_each_row_is_the_models_own(build, wrap):
    torch.manual_seed(0)
    model = build().eval()
    ids = torch.randint(3, 30, (3, 7))
    labels = ids.clone()
    labels[:, :3] = -100
    labels[1, 5:] = -100
    weights = torch.tensor([1.0, 0.3, 0.0])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "weights": weights}
    found = objective("generation")(wrap(model), batch)
    for row in range(3):
        own = model(input_ids=ids[row : row + 1], labels=labels[row : row + 1]).loss
        torch.testing.assert_close(found[row], own * weights[row], rtol=1e-5, atol=1e-6)
