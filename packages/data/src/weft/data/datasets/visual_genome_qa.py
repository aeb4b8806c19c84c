"""Visual Genome question answering: the official file, or the list that BLIP uses."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.media.reference import MediaRef
from weft.data.records.image_qa import ImageQA
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, Source

_FOLDERS = ("VG_100K", "VG_100K_2", "image", "images", "")


def read(source: Source, split: str) -> Iterator[ImageQA]:
    """Yield one `ImageQA` per question, with one answer."""
    file = source.find("question_answers.json", "vg_qa.json")
    folders: list[MediaFolder] = []

    def image(name: str) -> MediaRef:
        """Images are in two folders; the first that has the file serves it."""
        for folder in folders:
            ref = folder.ref(name)
            if not source.require_media or ref.exists():
                return ref
        folders.append(source.media(_FOLDERS, archives=["images.zip", "images2.zip"], probe=name))
        return folders[-1].ref(name)

    def make_official(row: Row) -> Iterator[ImageQA]:
        for qa in row.subs("qas"):
            image_id = qa.identity("image_id") if qa.has("image_id") else row.identity("id")
            name = f"{image_id}.jpg"
            yield ImageQA(
                id=qa.identity("qa_id"),
                image=image(name),
                image_id=image_id,
                question=qa.text("question"),
                answers=(qa.text("answer"),),
                soft_targets={qa.text("answer"): 1.0},
            )

    def make_list(row: Row) -> ImageQA:
        name = row.text("image").rsplit("/", 1)[-1]
        return ImageQA(
            id=row.identity("question_id") if row.has("question_id") else f"vg-{row.number}",
            image=image(name),
            image_id=name.rsplit(".", 1)[0],
            question=row.text("question"),
            answers=row.texts("answer"),
            soft_targets=dict.fromkeys(row.texts("answer"), 1.0),
        )

    make = make_list if "vg_qa" in file.path else make_official
    yield from source.build(source.json_rows(file), make)


SPEC = DatasetSpec(
    name="visual_genome_qa",
    record_type="image_qa",
    splits=("train",),
    read=read,
    summary="1.4 million questions about Visual Genome images, as extra training data for VQA.",
    licence="CC BY 4.0",
    citation="Krishna et al.: Visual Genome, IJCV 2017.",
    how_to_get="question_answers.json.zip (unpacked) and both image archives from "
    "https://homes.cs.washington.edu/~ranjay/visualgenome/; root holds question_answers.json, VG_100K/ and VG_100K_2/.",
    bases=("", "VG", "vg", "visual_genome"),
)
