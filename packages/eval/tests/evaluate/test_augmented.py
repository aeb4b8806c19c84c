"""What training alone sees: changed images, and every answer to a question."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BatchEncoding

from weft.data import ImageQA, MediaRef
from weft.data.media.transforms import ImageTransform
from weft.data.testing import image_bytes
from weft.eval.evaluate.augmented import AugmentedPixels
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.visual import Pixels, Visual
from weft.eval.readers.batch import IGNORED
from weft.eval.testing.own_subjects import own_subject, paired_batches

TRANSFORM = ImageTransform(size=8, shape="square", crop=None, mean=(0.0,) * 3, std=(1.0,) * 3)
ANSWERS = ("red",) * 5 + ("dark red",) * 4 + ("rose",)
QUESTION = ImageQA(
    id="7",
    image=MediaRef.from_bytes(image_bytes((200, 30, 30), size=(12, 9)), path="7.png"),
    image_id="7",
    question="which colour?",
    answers=ANSWERS,
    soft_targets={"red": 1.0, "dark red": 0.9, "rose": 0.3},
)
HIDDEN = replace(QUESTION, id="8", answers=(), soft_targets={})


class Letters:
    """Writes a text as the numbers of its letters."""

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        rows = [[1, *(ord(letter) for letter in text), 2] for text in texts]
        length = max(map(len, rows))
        ids = [row + [0] * (length - len(row)) for row in rows]
        return BatchEncoding({"input_ids": ids, "attention_mask": [[int(i > 0) for i in row] for row in ids]})


def batches_of(visual: Visual, **rules: Any) -> ReaderBatches:
    config = own_subject("weft_blip_answering").model.config
    return paired_batches(config, Letters(), visual, {"vqa": TextRules(**rules)})


def halves() -> Image.Image:
    """Black on the left, white on the right."""
    return Image.fromarray(np.repeat(np.array([[0] * 8 + [255] * 8], dtype=np.uint8), 16, axis=0)).convert(
        "RGB"
    )


def test_images_are_changed_in_training_alone_by_seed_record_and_epoch() -> None:
    plain = Pixels(TRANSFORM)
    visual = AugmentedPixels(plain)
    assert torch.equal(visual([[QUESTION.image]])["pixel_values"], plain([[QUESTION.image]])["pixel_values"])
    batches = batches_of(visual)

    def pixels(epoch: int) -> torch.Tensor:
        found: torch.Tensor = batches.training([("vqa", QUESTION)], epoch)["batch"].inputs["pixel_values"]
        return found

    epochs = [pixels(epoch) for epoch in range(6)]
    assert epochs[0].shape == (1, 1, 3, 8, 8)
    assert torch.equal(epochs[3], pixels(3))
    assert len({epoch.numpy().tobytes() for epoch in epochs}) > 2


@pytest.mark.parametrize(("text", "mirrored"), [("a field", True), ("the left field", False)])
def test_an_image_is_mirrored_unless_its_text_names_a_side(text: str, mirrored: bool) -> None:
    visual = AugmentedPixels(Pixels(TRANSFORM), smallest_crop=0.9, operations=0)
    changed = [np.asarray(visual.one(halves(), random.Random(seed), text)) for seed in range(12)]
    assert {image.shape for image in changed} == {(8, 8, 3)}
    assert (
        {bool(image[:, :2].mean() > image[:, -2:].mean()) for image in changed} == {True, False}
    ) == mirrored


def test_each_operation_is_applied_in_every_second_case() -> None:
    visual = AugmentedPixels(Pixels(TRANSFORM), smallest_crop=1.0, mirror=False, operations=1, magnitude=10)
    plain = replace(visual, operations=0)
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 2 + 40).convert("RGB")
    changed = 0
    for seed in range(200):
        ours, theirs = (np.asarray(v.one(grey, random.Random(seed), "")) for v in (visual, plain))
        changed += not np.array_equal(ours, theirs)
    # One operation in ten changes nothing, and not every other changes such an image.
    assert 50 <= changed <= 110


def test_all_answers_are_trained_on_by_the_share_of_annotators() -> None:
    batches = batches_of(Pixels(TRANSFORM), answers="all")
    batch = batches.training([("vqa", QUESTION), ("vqa", HIDDEN)])["batch"]
    assert batch.counts.tolist() == [3, 1]
    assert batch.weights.tolist() == pytest.approx([0.5, 0.4, 0.1, 0.0])
    end = batches.reader.config.text_config.sep_token_id
    assert [row[row != IGNORED].tolist()[-1] for row in batch.labels] == [end] * 4
    written = ["".join(chr(token) for token in row[row != IGNORED][:-1]) for row in batch.labels]
    assert written == ["red", "dark red", "rose", ""]
    assert len(batch.inputs["input_ids"]) == 2
    drawn = batches_of(Pixels(TRANSFORM)).training([("vqa", QUESTION)])["batch"]
    assert drawn.counts is None
    assert len(drawn.labels) == 1
