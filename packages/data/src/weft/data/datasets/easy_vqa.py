"""easy-VQA: questions about one coloured shape, with 13 answers (synthetic, MIT)."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.records.types import ImageQA, Record


def read(source: Source, split: str) -> Iterator[Record]:
    """Yield one `ImageQA` per question; `answer_type` is "yes/no" or "other".

    The official file is a JSON list of `[question, answer, image_id]`; images lie in a folder or in
    `images.zip` beside it.
    """
    file = source.find(f"{split}/questions.json")
    rows = file.json()
    probe = f"{rows[0][2]}.png" if rows and isinstance(rows[0], list) and len(rows[0]) == 3 else None
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

    yield from source.build(source.rows(file, rows), make)


SPEC = DatasetSpec(
    name="easy_vqa",
    task="image_qa",
    splits=("train", "test"),
    read=read,
    summary="48 k questions about 5,000 images of one coloured shape; 13 answers.",
    licence="MIT",
    citation="Victor Zhou, easy-VQA, 2019.",
    how_to_get="Clone https://github.com/vzhou842/easy-VQA; root is the clone (or easy_vqa/data in it), with "
    "{train,test}/questions.json and {train,test}/images/ or images.zip.",
    bases=("", "data", "easy_vqa/data"),
    expected={"train": 38575, "test": 9673},
)
