"""easy-VQA: questions about one coloured shape, with 13 answers, and its images in 24 classes (synthetic, MIT)."""

import re
from collections.abc import Iterator
from functools import partial

from weft.data.catalog import DatasetSpec
from weft.data.media.reference import MediaRef
from weft.data.records.classify import Classify
from weft.data.records.image_qa import ImageQA
from weft.data.records.rows import Row
from weft.data.records.source import Source

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
_NEGATED = re.compile(r"\b(?:not|no)\b")


def read_questions(source: Source, split: str) -> Iterator[ImageQA]:
    """Yield one `ImageQA` per question; `answer_type` is "yes/no" or "other".

    The official file is a JSON list of `[question, answer, image_id]`; images are in a folder or in
    `images.zip` beside it.
    """
    rows = list(source.json_rows(source.find(f"{split}/questions.json")))
    first = rows[0].value if rows else None
    probe = f"{first[2]}.png" if isinstance(first, list) and len(first) == 3 else None
    images = source.media([f"{split}/images"], archives=[f"{split}/images.zip"], probe=probe)

    def make(row: Row) -> ImageQA:
        answer, image_id = row.text(1), row.identity(2)
        return ImageQA(
            id=f"{split}-{row.number}",
            image=images.ref(f"{image_id}.png"),
            image_id=image_id,
            question=row.text(0),
            answers=(answer,),
            answer_type="yes/no" if answer in ("yes", "no") else "other",
            soft_targets={answer: 1.0},
        )

    yield from source.build(rows, make)


def read_shapes(source: Source, split: str) -> Iterator[Classify]:
    """Yield one `Classify` per image whose questions and answers tell both its colour and its shape.

    Answers name a colour or a shape, and questions do, unless the answer denies what they ask about. Images come in
    the order of their first question; those whose questions leave something open are left out.
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


_easy_vqa = partial(
    DatasetSpec,
    splits=("train", "test"),
    licence="MIT",
    how_to_get="Clone https://github.com/vzhou842/easy-VQA; root is the clone (or easy_vqa/data in it), with "
    "{train,test}/questions.json and {train,test}/images/ or images.zip.",
    bases=("", "data", "easy_vqa/data"),
)
SPECS = (
    _easy_vqa(
        name="easy_vqa",
        record_type="image_qa",
        read=read_questions,
        summary="48 k questions about 5,000 images of one coloured shape; 13 answers.",
        citation="Victor Zhou, easy-VQA, 2019.",
        expected={"train": 38575, "test": 9673},
    ),
    _easy_vqa(
        name="easy_vqa_shapes",
        record_type="classify",
        read=read_shapes,
        summary="easy-VQA's images of one coloured shape, in 24 classes.",
        citation="Victor Zhou, easy-VQA, 2019; the classes are read from its questions.",
        expected={"train": 3542, "test": 880},
    ),
)
