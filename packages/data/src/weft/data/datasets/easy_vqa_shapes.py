"""The images of easy-VQA by colour and shape: 24 classes, for few-shot classification."""

import re
from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._easy_vqa import BASES, HOW_TO_GET
from weft.data.datasets._easy_vqa import read as read_questions
from weft.data.media.reference import MediaRef
from weft.data.records.classify import Classify
from weft.data.records.source import Source

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
_NEGATED = re.compile(r"\b(?:not|no)\b")


def read(source: Source, split: str) -> Iterator[Classify]:
    """Yield one `Classify` per image whose questions and answers tell both its colour and its shape.

    Answers name a colour or a shape, and questions do, unless the answer denies what they ask about. Images come in
    the order of their first question; those whose questions leave something open are left out.

    Args:
        source: Where the files are.
        split: "train" or "test".
    """
    source.classes = list(NAMES)
    images: dict[str, MediaRef] = {}
    words: dict[str, set[str]] = {}
    for record in read_questions(source, split):
        images.setdefault(record.image_id, record.image)
        words.setdefault(record.image_id, set()).update(_told(record.question, record.answers[0]))
    for image_id, image in images.items():
        colours, shapes = words[image_id] & {*COLOURS}, words[image_id] & {*SHAPES}
        if len(colours) == len(shapes) == 1:
            name = f"{colours.pop()} {shapes.pop()}"
            yield Classify(id=f"{split}-{image_id}", image=image, label=NAMES.index(name), class_name=name)


def _told(question: str, answer: str) -> set[str]:
    """The colours and shapes that a question and its answer say of the image."""
    named = set(re.findall(r"\w+", question)) & {*COLOURS, *SHAPES}
    if answer not in ("yes", "no"):
        return named | {answer}
    holds = (answer == "yes") != bool(_NEGATED.search(question))
    return named if holds else set()


SPEC = DatasetSpec(
    name="easy_vqa_shapes",
    record_type="classify",
    splits=("train", "test"),
    read=read,
    summary="easy-VQA's images of one coloured shape, in 24 classes.",
    licence="MIT",
    citation="Victor Zhou, easy-VQA, 2019; the classes are read from its questions.",
    how_to_get=HOW_TO_GET,
    bases=BASES,
    expected={"train": 3542, "test": 880},
)
