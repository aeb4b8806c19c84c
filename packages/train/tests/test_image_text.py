"""Image-text contrast and matching: the momentum encoders, the queue, soft targets and hard negatives."""

import pytest
import torch
from torch.nn import functional

from weft.core import attach
from weft.core.composites import BlipRetrieval, BlipRetrievalConfig
from weft.core.testing.vision_language import blip_fields
from weft.eval.readers import PairedProcessor, reader_for
from weft.train.engine.checkpoints import load_states, save_states
from weft.train.errors import RunError
from weft.train.objectives import objectives_of
from weft.train.objectives.image_text import ImageText
from weft.train.objectives.itc import UNUSED, FeatureQueue, itc_losses
from weft.train.objectives.itm import hard_negatives
from weft.train.objectives.momentum import Momentum
from weft.train.recipe.training import ContrastSection, TrainingSection

UNIT = {"method": "uniadapter", "bottleneck_size": 8, "train_full": ["projector", "head"]}


def retrieval(*units):
    torch.manual_seed(0)
    return attach(BlipRetrieval(BlipRetrievalConfig(**blip_fields(32), encode_token_id=99)), [UNIT, *units])


def pairs(rows=4, frames=1):
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(5, 90, (rows, 6)),
        "attention_mask": torch.ones(rows, 6, dtype=torch.long),
        "pixel_values": torch.randn(rows, frames, 3, 16, 16),
        "same_image": torch.arange(rows),
        "same_text": torch.arange(rows),
    }


def learned(loss, model, batch):
    return loss.losses(model, batch, batch["same_image"])


def test_the_momentum_encoders_move_once_a_step_and_hold_nothing_that_is_frozen():
    model = retrieval()
    slow = Momentum(model, leave_out=("itm_head", "temp"), decay=0.995)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert set(slow.names) == {name for name in trained if not name.startswith("itm_head")}
    held = sum(value.numel() for value in slow.buffers())
    assert held < sum(value.numel() for value in model.parameters()) / 3
    before = {name: slow.get_buffer(f"copy_{k}").clone() for k, name in enumerate(slow.names)}
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    slow.update(model)
    for index, name in enumerate(slow.names):
        # Every adapter is reached from several layers' sites and moves once all the same.
        expected = 0.995 * before[name] + 0.005 * (before[name] + 1)
        torch.testing.assert_close(slow.get_buffer(f"copy_{index}"), expected, atol=1e-6, rtol=1e-6)
    own = {name: value.clone() for name, value in model.named_parameters()}
    batch = pairs()
    fast = model.encode_text(batch["input_ids"])
    with slow.swapped(model):
        inside = model.encode_text(batch["input_ids"])
    assert not inside.requires_grad
    assert not torch.allclose(inside, fast)
    assert all(torch.equal(value, own[name]) for name, value in model.named_parameters())
    assert torch.equal(model.encode_text(batch["input_ids"]), fast)
    with pytest.raises(RunError, match=r"`decay` must lie in \[0, 1\), but is 1"):
        Momentum(model, decay=1.0)


def test_the_queue_goes_round_and_unused_columns_are_nobodys_match():
    queue = FeatureQueue(6, 2, rows=2)
    assert (queue.ids == UNUSED).all()
    for step in range(4):
        ids = torch.tensor([2 * step, 2 * step + 1])
        queue.push(torch.full((2, 2), float(step)), torch.full((2, 2), -float(step)), ids)
    assert queue.ids.tolist() == [6, 7, 2, 3, 4, 5]
    assert queue.place == 2
    assert queue.images[:, 0].tolist() == [3, 3, 1, 1, 2, 2]
    assert queue.texts[:, 0].tolist() == [-3, -3, -1, -1, -2, -2]
    with pytest.raises(
        RunError, match=r"multiple of the rows of a step over all processes \(4\), but is 6. Take 8"
    ):
        FeatureQueue(6, 2, rows=4)


def test_contrast_is_the_soft_cross_entropy_of_both_sides():
    torch.manual_seed(0)
    features = [functional.normalize(torch.randn(3, 4), dim=1) for _ in range(4)]
    image, text, slow_image, slow_text = features
    queue = FeatureQueue(6, 4, rows=3)
    queue.push(
        functional.normalize(torch.randn(3, 4), dim=1),
        functional.normalize(torch.randn(3, 4), dim=1),
        torch.tensor([1, 8, 9]),
    )
    ids = torch.tensor([0, 1, 1])
    found = itc_losses(image, text, slow_image, slow_text, ids, queue, temperature=0.2, alpha=0.4)
    columns = [0, 1, 1, *queue.ids.tolist()]
    for row in range(3):
        matches = [k for k, column in enumerate(columns) if column == ids[row]]
        assert all(column < 6 for column in matches), "columns that were never written do not match"
        expected = 0.0
        for own, slow, other in (
            (image, slow_image, torch.cat([slow_text, queue.texts])),
            (text, slow_text, torch.cat([slow_image, queue.images])),
        ):
            target = 0.4 * (other @ slow[row] / 0.2).softmax(0)
            target[matches] += 0.6 / len(matches)
            expected -= (target * (other @ own[row] / 0.2).log_softmax(0)).sum() / 2
        assert found[row].item() == pytest.approx(expected.item(), rel=1e-5)


def test_columns_that_were_never_written_are_negatives_as_in_the_original_code():
    torch.manual_seed(0)
    image, text, slow_image, slow_text = (functional.normalize(torch.randn(2, 4), dim=1) for _ in range(4))
    queue, ids = FeatureQueue(4, 4, rows=2), torch.tensor([3, 8])
    torch.testing.assert_close(queue.texts.norm(dim=1), torch.ones(4))

    def losses():
        return itc_losses(image, text, slow_image, slow_text, ids, queue, temperature=0.2, alpha=0.0)

    to_texts = (image @ torch.cat([slow_text, queue.texts]).T / 0.2).log_softmax(1).diagonal()
    to_images = (text @ torch.cat([slow_image, queue.images]).T / 0.2).log_softmax(1).diagonal()
    torch.testing.assert_close(losses(), -(to_texts + to_images) / 2)
    before = losses()
    queue.texts.copy_(-queue.texts)
    assert not torch.allclose(losses(), before)


def test_hard_negatives_are_likely_ones_and_never_of_the_same_image():
    similarity = torch.tensor([[9.0, 3.0, 9.0, 0.0]]).expand(2000, 4)
    torch.manual_seed(0)
    drawn = hard_negatives(similarity, torch.zeros(2000, dtype=torch.long), torch.tensor([0, 1, 0, 2]))
    counts = drawn.bincount(minlength=4) / 2000
    expected = torch.tensor([3.0, 0.0]).softmax(0)
    assert counts[[0, 2]].tolist() == [0, 0]
    torch.testing.assert_close(counts[[1, 3]], expected, atol=0.02, rtol=0)
    far = hard_negatives(torch.tensor([[0.0, -1e4]]), torch.tensor([0]), torch.tensor([0, 1]))
    assert far.tolist() == [1]
    with pytest.raises(RunError, match="some batch shows one image alone"):
        hard_negatives(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize("frame_aware", [False, True])
def test_every_trained_weight_gets_a_gradient_and_no_frozen_one(frame_aware):
    model = retrieval(*([{"method": "frame_attention"}] if frame_aware else []))
    section = ContrastSection(queue_size=8)
    loss = ImageText(model, section, rows=4)
    assert loss.frame_aware is frame_aware
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(0.02 * torch.randn_like(value))
    losses = learned(loss, model, pairs(frames=2))
    assert losses.shape == (4,)
    losses.mean().backward()
    for name, value in model.named_parameters():
        assert (value.grad is not None) == value.requires_grad, name
        assert value.grad is None or value.grad.abs().sum() > 0, name
    assert loss.queue.ids[:4].tolist() == [0, 1, 2, 3]


def test_state_is_kept_in_a_checkpoint(tmp_path):
    model = retrieval()
    loss = ImageText(model, ContrastSection(queue_size=8, alpha_steps=4), rows=4)
    for _ in range(3):
        learned(loss, model, pairs())
    assert loss._alpha() == pytest.approx(0.4 * 3 / 4)
    save_states({"contrastive": loss}, tmp_path)
    other = ImageText(model, ContrastSection(queue_size=8, alpha_steps=4), rows=4)
    load_states({"contrastive": other}, tmp_path)
    assert other.state_dict().keys() == loss.state_dict().keys()
    assert all(torch.equal(value, loss.state_dict()[name]) for name, value in other.state_dict().items())


def test_sixteen_pairs_are_learnt_by_heart():
    # As in real texts, the first token is the same in all. It is the one whose feature is taken, so that attention
    # must carry the others to it: with weights as small as usual, random attention carries next to nothing.
    torch.manual_seed(0)
    wide = {"initializer_range": 0.2}
    fields = blip_fields(32, text=wide, vision=wide)
    model = attach(BlipRetrieval(BlipRetrievalConfig(**fields, encode_token_id=99)), UNIT)
    batch = pairs(16)
    batch["input_ids"][:, 0] = 96
    # The momentum encoder follows quickly, because there are few steps.
    loss = ImageText(model, ContrastSection(queue_size=16, alpha=0.0, momentum=0.5), rows=16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(75):
        optimizer.zero_grad()
        learned(loss, model, batch).mean().backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        similarity = model.encode_text(batch["input_ids"]) @ model.encode_image(batch["pixel_values"]).T
    assert similarity.argmax(1).tolist() == similarity.argmax(0).tolist() == list(range(16))


def test_a_reader_says_what_its_model_is_trained_by():
    model = retrieval()
    section = TrainingSection(steps=1, learning_rate=1.0, contrast={"queue_size": 8})
    reader = reader_for(model.config, PairedProcessor())
    assert isinstance(objectives_of(model, section, 2, reader)["contrastive"], ImageText)
