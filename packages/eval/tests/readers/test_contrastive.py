"""The loss of a comparison: in a batch, every text finds its image and every image its text."""

import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.nn import functional

from weft.core.testing.processed import tiny
from weft.eval.readers import PairedProcessor, ask, reader_for
from weft.eval.readers.batch import Batch
from weft.eval.testing.own_subjects import own_subject


def batch(rows: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda: functional.normalize(torch.randn(rows, 4, generator=generator), dim=-1)  # noqa: E731
    return {
        "text": draw(),
        "image": draw(),
        "same_text": torch.arange(rows),
        "same_image": torch.arange(rows),
    }


def losses_of(values: dict[str, torch.Tensor]) -> torch.Tensor:
    rows = len(values["text"])
    reader = reader_for(own_subject("weft_dual_encoder").model.config, PairedProcessor())
    made = Batch(
        {side: values[side] for side in ("text", "image")},
        [str(row) for row in range(rows)],
        ["t"] * rows,
        torch.ones(rows),
        "contrastive",
        identities={side: values[f"same_{side}"] for side in ("text", "image")},
    )
    return reader.row_losses(model, made)


def model(text: torch.Tensor, image: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(text_embeds=text, image_embeds=image, logit_scale=torch.tensor(7.0))


def test_the_loss_is_the_mean_of_both_directions():
    values = batch()
    losses = losses_of(values)
    similarity = 7.0 * values["text"] @ values["image"].T
    for row in range(5):
        to_image = -similarity[row].softmax(0)[row].log()
        to_text = -similarity[:, row].softmax(0)[row].log()
        assert losses[row].item() == pytest.approx(((to_image + to_text) / 2).item(), rel=1e-5)


@pytest.mark.parametrize("side", ["same_text", "same_image"])
def test_rows_that_show_the_same_are_no_negatives_of_one_another(side):
    values = batch()
    values[side] = torch.tensor([0, 1, 0, 3, 4])
    losses = losses_of(values)
    kept = torch.tensor([0, 1, 3, 4])
    alone = {name: value[kept] for name, value in values.items()}
    assert torch.allclose(losses[0], losses_of(alone)[0])


def test_a_batch_of_one_thing_has_no_loss_and_a_finite_gradient():
    values = batch(3)
    values["same_text"] = torch.zeros(3, dtype=torch.long)
    values["text"].requires_grad_(True)
    losses = losses_of(values)
    losses.sum().backward()
    assert torch.equal(losses, torch.zeros(3))
    assert torch.equal(values["text"].grad, torch.zeros(3, 4))


def test_a_blip_of_transformers_learns_to_find_and_to_match():
    made = tiny("blip_itr")
    reader = reader_for(made.model.config, made.processor)
    colours = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30))
    rows = [
        ask(f"a {word} thing", [Image.new("RGB", (40, 30), colour)], name=word, answer="")
        for word, colour in zip(("red", "green", "blue", "red"), colours, strict=True)
    ]
    batch = reader.training(rows)
    model = made.model.eval()
    with torch.no_grad():
        texts, images = reader.embed_texts(model, batch), reader.embed_pictures(model, batch)
    similarity = math.exp(model.config.logit_scale_init_value) * texts @ images.T

    def belongs(text: int, picture: int) -> torch.Tensor:
        pixels = batch.inputs["pixel_values"][picture : picture + 1]
        own = {name: value[text : text + 1] for name, value in batch.inputs.items() if name != "pixel_values"}
        return model(**own, pixel_values=pixels).itm_score[0].log_softmax(0)

    losses = reader.row_losses(model, batch)
    for row in range(4):
        others = [
            other for other in range(4) if other != row and {other, row} != {0, 3}
        ]  # 0 and 3 share their text
        kept = torch.tensor([row, *others])
        find = -(similarity[row, kept].log_softmax(0)[0] + similarity[kept, row].log_softmax(0)[0]) / 2
        picture = max(others, key=lambda other: similarity[row, other].item())
        text = max(others, key=lambda other: similarity[other, row].item())
        match = -(belongs(row, row)[1] + belongs(row, picture)[0] + belongs(text, row)[0]) / 3
        torch.testing.assert_close(losses[row], find + match, rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    assert model.itm_head.weight.grad.abs().sum() > 0
