"""The padding of a question is read by no answer of BLIP."""

import pytest
import torch
from torch.nn import functional

from weft.core.composites import BlipAnswering, BlipAnsweringConfig
from weft.core.testing.vision_language import blip_fields


def answering():
    torch.manual_seed(0)
    fields = blip_fields(text={"initializer_range": 0.5})
    return BlipAnswering(BlipAnsweringConfig(**fields, encode_token_id=99)).eval()


@torch.no_grad()
@pytest.mark.parametrize("pads", [2, 6, 12])
def test_the_padding_of_a_question_is_read_by_no_answer(pads):
    model = answering().double()
    ids, pixels = torch.randint(5, 90, (1, 7)), torch.randn(1, 3, 16, 16).double()
    answers = torch.tensor([[7, 30, 31, 98]])
    shown = torch.ones_like(answers)

    def asked(ids, mask):
        states = model.encode_question(ids, mask, pixels)
        logits = model.answer_logits(answers, shown, states, mask)
        return logits, model.answer_losses(answers, shown, states, mask)

    padded = functional.pad(ids, (0, pads))
    mask = (padded != 0).long()
    for found, expected in zip(asked(padded, mask), asked(ids, torch.ones_like(ids)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for beams in (1, 3):
        options = {"max_new_tokens": 4, "do_sample": False, "num_beams": beams}
        alone = model.generate(ids, pixels, **options)
        assert torch.equal(model.generate(padded, pixels, mask, **options), alone)


@torch.no_grad()
def test_the_padding_of_a_question_can_be_read_in_writing_as_by_the_original_code():
    model = answering()
    ids, pixels = torch.randint(5, 90, (1, 7)), torch.randn(1, 3, 16, 16)
    padded = functional.pad(ids, (0, 6))
    mask = (padded != 0).long()
    masks = []
    hook = model.text_decoder.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["encoder_attention_mask"]), with_kwargs=True
    )
    model.generate(padded, pixels, mask, reads_padding=True, max_new_tokens=1, do_sample=False)
    model.generate(padded, pixels, mask, max_new_tokens=1, do_sample=False)
    hook.remove()
    assert torch.equal(masks[0], torch.ones_like(mask))
    assert torch.equal(masks[1], mask)
