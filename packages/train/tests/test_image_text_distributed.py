"""Two processes on a CPU train image-text contrast and matching as one does."""

import sys

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from weft.core import attach
from weft.core.composites import BlipRetrieval, BlipRetrievalConfig
from weft.core.testing.processes import spawn
from weft.core.testing.vision_language import blip_fields
from weft.train.errors import RunError
from weft.train.objectives import itm
from weft.train.objectives.image_text import ImageText
from weft.train.objectives.itc import FeatureQueue, itc_losses
from weft.train.objectives.itm import itm_losses
from weft.train.objectives.momentum import Momentum
from weft.train.recipe.training import ContrastSection

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo"),
]

STEPS = 3


def model():
    torch.manual_seed(0)
    config = BlipRetrievalConfig(**blip_fields(), encode_token_id=99)
    unit = {"method": "uniadapter", "bottleneck_size": 4, "init": "repo", "train_full": ["projector", "head"]}
    return attach(BlipRetrieval(config), unit)


def likeliest(similarity, ids, columns):
    """The negatives that are likeliest to be drawn, so that nothing is left to chance."""
    return similarity.masked_fill(ids[:, None] == columns, float("-inf")).argmax(dim=1)


def half(rank, step):
    """Two of four pairs; the texts of the second process are shorter."""
    generator = torch.Generator().manual_seed(2 * step + rank)
    length = 7 - 2 * rank
    return {
        "input_ids": torch.randint(5, 90, (2, length), generator=generator),
        "attention_mask": torch.ones(2, length, dtype=torch.long),
        "pixel_values": torch.randn(2, 1, 3, 16, 16, generator=generator),
        "same_image": torch.tensor([2 * rank, 2 * rank + 1]) + 4 * step,
    }


def whole(step):
    """Both halves, the shorter texts padded."""
    parts = [half(rank, step) for rank in range(2)]
    longest = max(part["input_ids"].shape[1] for part in parts)
    for part in parts:
        missing = (0, longest - part["input_ids"].shape[1])
        for name in ("input_ids", "attention_mask"):
            part[name] = torch.nn.functional.pad(part[name], missing)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def optimiser(adapted):
    return torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.05)


def trained(adapted):
    return {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}


def alone(negatives):
    """One process that sees both halves, written out: each half has its own contrast, and the queue is one."""
    adapted = model()
    torch.manual_seed(5)
    slow, queue = Momentum(adapted, leave_out=("itm_head", "temp"), decay=0.9), FeatureQueue(8, 8, rows=4)
    steps = optimiser(adapted)
    for step in range(STEPS):
        batch = whole(step)
        texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
        slow.update(adapted)
        with slow.swapped(adapted):
            slow_image = adapted.encode_image(batch["pixel_values"])
            slow_text = adapted.encode_text(**texts)
        video, text = adapted.encode_video(batch["pixel_values"]), adapted.encode_text(**texts)
        losses = []
        for rows in (slice(0, 2), slice(2, 4)):
            ids = batch["same_image"][rows]
            features = (video.feature[rows], text[rows], slow_image[rows], slow_text[rows])
            losses.append(itc_losses(*features, ids, queue, temperature=adapted.temp, alpha=0.4))
            if negatives == "local":
                own = {name: value[rows] for name, value in texts.items()}
                part = type(video)(**{name: value[rows] for name, value in video.items()})
                losses[-1] = losses[-1] + itm_losses(
                    adapted, own, part, text[rows], ids, temperature=adapted.temp
                )
        found = torch.cat(losses)
        if negatives == "gathered":
            found = found + itm_losses(
                adapted, texts, video, text, batch["same_image"], temperature=adapted.temp
            )
        steps.zero_grad()
        found.mean().backward()
        steps.step()
        queue.push(slow_image, slow_text, batch["same_image"])
    return trained(adapted), dict(slow.named_buffers()), dict(queue.named_buffers())


def _train(rank, folder, negatives):
    itm.hard_negatives = likeliest
    adapted = model()
    torch.manual_seed(5)
    section = ContrastSection(queue_size=8, negatives=negatives, momentum=0.9)
    loss = ImageText(adapted, section, rows=2)
    wrapped = torch.nn.parallel.DistributedDataParallel(adapted)
    steps = optimiser(adapted)
    for step in range(STEPS):
        steps.zero_grad()
        batch = half(rank, step)
        loss.losses(wrapped, batch, batch["same_image"]).mean().backward()
        steps.step()
    for found, name in (
        (trained(adapted), "model"),
        (dict(loss.momentum.named_buffers()), "slow"),
        (dict(loss.queue.named_buffers()), "queue"),
    ):
        expected = load_file(folder / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], atol=1e-6, rtol=1e-4, msg=f"{name} {key}")
    with pytest.raises(RunError, match=r"over all processes \(4\), but is 6"):
        FeatureQueue(6, 8, rows=2)


@pytest.mark.parametrize("negatives", ["local", "gathered"])
def test_two_processes_move_weights_copies_and_queue_as_one_does(tmp_path, negatives, monkeypatch):
    monkeypatch.setattr(itm, "hard_negatives", likeliest)
    start = trained(model())
    values, slow, queue = alone(negatives)
    assert all(not torch.equal(value, start[name]) for name, value in values.items())
    assert queue["ids"].tolist() == [8, 9, 10, 11, 4, 5, 6, 7]
    for name, state in (("model", values), ("slow", slow), ("queue", queue)):
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / f"{name}.safetensors")
    spawn(_train, tmp_path, negatives)
