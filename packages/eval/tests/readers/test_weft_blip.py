"""What weft's own BLIPs are trained on, against their losses one by one."""

import torch

from weft.core.composites import BlipAnswering, BlipAnsweringConfig, BlipCaptioning, BlipCaptioningConfig
from weft.core.testing.vision_language import blip_fields
from weft.eval.readers import PairedProcessor, reader_for
from weft.eval.readers.batch import Batch


def reader_of(model):
    return reader_for(model.config, PairedProcessor())


def questions(rows):
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(5, 90, (rows, 6)),
        "attention_mask": torch.ones(rows, 6, dtype=torch.long),
        "pixel_values": torch.randn(rows, 1, 3, 16, 16),
    }


def taught(inputs, read, labels, weights, **fields):
    """A batch of answers: what the decoder reads, and what it learns."""
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    decoder = {"decoder_input_ids": read, "decoder_attention_mask": (read != 0).long()}
    rows = len(texts["input_ids"])
    names = [str(row) for row in range(rows)]
    return Batch({**texts, **decoder}, names, ["t"] * rows, weights, labels=labels, **fields)


def test_answers_are_weighted_and_summed_by_question():
    torch.manual_seed(0)
    model = BlipAnswering(BlipAnsweringConfig(**blip_fields(), encode_token_id=99)).eval()
    inputs, weights = questions(2), torch.tensor([0.3, 1.0, 0.6])
    read = torch.tensor([[97, 20, 98, 0], [97, 30, 31, 98], [97, 40, 98, 0]])
    labels = read.masked_fill(read == 0, -100)
    batch = taught(inputs, read, labels, weights, counts=torch.tensor([1, 2]))
    found = reader_of(model).row_losses(model, batch)
    states = model.encode_question(inputs["input_ids"], inputs["attention_mask"], inputs["pixel_values"])
    each = []
    for row, owner in enumerate((0, 1, 1)):
        answer = read[row : row + 1][:, read[row] != 0]
        mask = torch.ones_like(answer)
        each.append(
            model.answer_losses(
                answer, mask, states[owner : owner + 1], inputs["attention_mask"][owner : owner + 1]
            )[0]
        )
    expected = torch.stack([0.3 * each[0], each[1] + 0.6 * each[2]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_captions_weigh_every_token_of_a_batch_the_same():
    torch.manual_seed(0)
    settings = BlipCaptioningConfig(**blip_fields())
    model = BlipCaptioning(settings).eval()
    captions = torch.tensor([[95, 20, 98, 0], [95, 30, 31, 98]])
    weights = torch.tensor([1.0, 0.5])
    prompts = torch.tensor([[95, 11, 98]]).expand(2, -1)
    inputs = {"input_ids": prompts, "attention_mask": torch.ones_like(prompts)}
    inputs["pixel_values"] = torch.randn(2, 1, 3, 16, 16)
    read = torch.cat([torch.tensor([[97, 11]] * 2), captions[:, 1:]], 1)
    labels = read.masked_fill(read == 0, -100)
    labels[:, :2] = -100
    batch = taught(inputs, read, labels, weights, positions=torch.tensor([1, 2, 3]))
    found = reader_of(model).row_losses(model, batch)
    sums, counts = model.caption_losses(**_caption(inputs, captions))
    assert counts.tolist() == [2, 3]
    torch.testing.assert_close(found.mean(), (weights * sums).sum() / 5, atol=1e-6, rtol=1e-6)


def _caption(inputs, captions):
    return {
        "prompts": inputs["input_ids"],
        "prompt_mask": inputs["attention_mask"],
        "pixel_values": inputs["pixel_values"],
        "captions": captions,
        "caption_mask": (captions != 0).long(),
    }
