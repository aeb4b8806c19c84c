"""Rows that are told apart by the classes of their task."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional

from weft.core import attach
from weft.core.composites import ImageClassifier, ImageClassifierConfig
from weft.core.testing.processed import tiny
from weft.core.testing.processed.stills import image_processor
from weft.eval.readers import Reader, ReaderError, Row, ask, reader_for
from weft.eval.readers.classes import Classes
from weft.eval.readers.classifying import class_features
from weft.eval.testing import ReaderContract, Subject

METHOD = {"method": "lora", "rank": 2, "sharing": "multiple"}
COLOURS = Classes.written(["red", '{b}/"é'], ["a {}.", "{}"])
SHAPES = Classes.written(["circle", "square", "star", "a {} hexagon"], ["what is a {}?"])
TASKS = {"colours": COLOURS, "shapes": SHAPES}


def rows() -> list[Row]:
    asked = [("shapes", 3), ("colours", 1), ("shapes", 0), ("shapes", 1), ("colours", 0)]
    return [
        ask(
            "",
            [Image.new("RGB", (20 + 9 * place, 31), (60 * place, 90, 255 - 50 * place))],
            name=f"{task}/{place}",
            task=task,
            answer=TASKS[task].names[label],
            classes=TASKS[task],
        )
        for place, (task, label) in enumerate(asked)
    ]


def headed() -> Subject:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower = transformers.Dinov2Config(**sizes, image_size=28, patch_size=14)
    torch.manual_seed(0)
    model = ImageClassifier(ImageClassifierConfig(tower, {"colours": 2, "shapes": 4})).eval()
    processor = image_processor("ViTImageProcessor", size={"height": 28, "width": 28})

    def own(given: Sequence[Row]) -> dict[str, Any]:
        return dict(processor([picture for row in given for picture in row.pictures], return_tensors="pt"))

    return Subject("heads", model, processor, own, rows=rows(), method={**METHOD, "train_full": ["heads"]})


def dual(name: str) -> tuple[Any, Reader]:
    made = tiny(name)
    torch.manual_seed(0)
    model = attach(deepcopy(made.model), METHOD, list(TASKS))
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.normal_(std=0.3)
    return model.eval(), reader_for(model.config, made.processor)


def heads() -> tuple[Any, Reader]:
    made = headed()
    return attach(made.model, dict(made.method or {}), list(TASKS)).eval(), made.reader


SUBJECTS = {"clip": lambda: dual("clip"), "siglip": lambda: dual("siglip"), "heads": heads}


class TestHeads(ReaderContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return headed()


def losses(model: Any, reader: Reader, given: list[Row]) -> torch.Tensor:
    batch = reader.training(given)
    assert batch.objective == "classification"
    with model.route(tasks=batch.routes):
        return reader.row_losses(model, batch)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_mixed_batch_is_the_separate_batches_with_units_of_each_task(name: str) -> None:
    model, reader = SUBJECTS[name]()
    together = losses(model, reader, rows())
    alone = torch.cat([losses(model, reader, [row]) for row in rows()])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_loss_is_the_cross_entropy_of_the_scores_that_rows_are_judged_by(name: str) -> None:
    model, reader = SUBJECTS[name]()
    row = rows()[0]
    with torch.no_grad(), model.route(task="shapes"):
        features = reader.class_features(model, "shapes", SHAPES, batch_size=3)
        scores = reader.classify(model, reader.asking([replace(row, answer=None)]), features)
        scale = model.logit_scale.exp() if name != "heads" else 1.0
        expected = functional.cross_entropy(scale * scores, torch.tensor([3]), reduction="none")
        torch.testing.assert_close(losses(model, reader, [row]), expected)


def test_a_class_is_the_mean_of_its_texts_of_length_one_and_braces_of_its_name_stay() -> None:
    assert COLOURS.texts[1] == ('a {b}/"é.', '{b}/"é')
    texts = functional.normalize(torch.randn(3, 4), dim=1)
    made = class_features(texts, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(made[0], functional.normalize(texts[:2].mean(0), dim=0))
    torch.testing.assert_close(made[1], texts[2])


def test_gradients_reach_the_texts_of_the_classes_through_the_units_of_their_task_alone() -> None:
    model, reader = dual("clip")
    losses(model, reader, [row for row in rows() if row.task == "shapes"]).mean().backward()
    for key, slot, value in model.weft.slots():
        assert value.grad is not None, key
        assert bool(value.grad.any()) == (slot == "shapes"), (key, slot)


def test_answers_that_are_no_class_and_rows_without_classes_are_named() -> None:
    _, reader = dual("clip")
    with pytest.raises(ReaderError, match="that of shapes/0 is 'cat'"):
        reader.training([replace(rows()[0], answer="cat")])
    with pytest.raises(ReaderError, match=r"colours/1 has none.*homogeneous"):
        reader.training([rows()[0], replace(rows()[1], classes=None)])
    _, reader = heads()
    with pytest.raises(ReaderError, match=r"`rows` must have classes .*shapes/0 has none"):
        reader.training([replace(rows()[0], classes=None)])
    with pytest.raises(ReaderError, match=r"task 'colours' as many classes as it has \(4\), but gives 2"):
        reader.training([replace(rows()[1], classes=SHAPES, answer="star")])
