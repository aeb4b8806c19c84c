"""The questions of easy-VQA, as its official files are on disk."""

from collections.abc import Iterator

from weft.data.records.image_qa import ImageQA
from weft.data.records.rows import Row
from weft.data.records.source import Source

HOW_TO_GET = (
    "Clone https://github.com/vzhou842/easy-VQA; root is the clone (or easy_vqa/data in it), with "
    "{train,test}/questions.json and {train,test}/images/ or images.zip."
)
BASES = ("", "data", "easy_vqa/data")


def read(source: Source, split: str) -> Iterator[ImageQA]:
    """Yield one `ImageQA` per question; `answer_type` is "yes/no" or "other".

    The official file is a JSON list of `[question, answer, image_id]`; images are in a folder or in
    `images.zip` beside it.
    """
    file = source.find(f"{split}/questions.json")
    rows = list(source.rows(file, file.json()))
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
