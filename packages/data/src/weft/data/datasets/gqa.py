"""GQA: compositional questions about Visual Genome images; also the VL-T5 lists and files of xGQA."""

from collections.abc import Iterator
from typing import Any

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.records.image_qa import ImageQA
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source, StoredFile

_KEPT = ("types", "groups", "entailed", "equivalent", "isBalanced", "semantic", "semanticStr", "fullAnswer")
_VLT5 = {"vlt5_train": "train", "vlt5_valid": "valid", "vlt5_testdev": "testdev", "vlt5_submit": "submit"}


def read(source: Source, split: str, *, questions: str | None = None) -> Iterator[ImageQA]:
    """Yield one `ImageQA` per question; official fields for the metric stay in `extra`.

    Official splits read `{split}_questions.json`, or every shard of a folder of that name. Splits `vlt5_*`
    read the lists of VL-T5 and VL-Adapter.

    Options:
        questions: Path of the questions file below the root, where it has no official name (xGQA).
    """
    folders = ["images", "images/allImages/images", "GQA/images"]
    images = MediaFiles(source, folders, ["images.zip", "allImages.zip"])

    def make(row: Row) -> ImageQA:
        image_id = row.identity("imageId")
        types: dict[str, Any] = row.mapping("types") if row.has("types") else {}
        answer = row.text("answer", "")
        return ImageQA(
            id=str(row.number),
            image=images.ref(f"{image_id}.jpg"),
            image_id=image_id,
            question=row.text("question"),
            answers=(answer,) if answer else (),
            question_type=types.get("structural") or "",
            answer_type=types.get("semantic") or "",
            soft_targets={answer: 1.0} if answer else {},
            extra=row.kept(*_KEPT),
        )

    def make_vlt5(row: Row) -> ImageQA:
        image_id = row.identity("img_id")
        label = row.mapping("label") if row.has("label") else {}
        return ImageQA(
            id=row.identity("question_id"),
            image=images.ref(f"{image_id}.jpg"),
            image_id=image_id,
            question=row.text("sent"),
            answers=tuple(label),
            soft_targets=label,
        )

    if split in _VLT5:
        file = source.find(questions or f"{_VLT5[split]}.json")
        yield from source.build(source.json_rows(file), make_vlt5)
        return
    for file in _question_files(source, split, questions):
        content = file.json()
        if not isinstance(content, dict):
            file.top().fail("must be an object keyed by question id")
        yield from source.build((Row(value, file.name, key) for key, value in content.items()), make)


def _question_files(source: Source, split: str, questions: str | None) -> list[StoredFile]:
    if questions is None:
        prefix = f"{split}_questions"
        shards = source.find_all(prefix, lambda name: name.startswith(prefix) and ".json" in name)
        if shards:
            return sorted(shards, key=_number)
    return [source.find(questions or f"{split}_questions.json")]


def _number(file: StoredFile) -> list[int]:
    parts = file.path.rsplit("/", 1)[-1].split(".")[0].split("_")
    return [int(part) if part.isdigit() else -1 for part in parts]


SPEC = DatasetSpec(
    name="gqa",
    record_type="image_qa",
    splits=(
        *("train_balanced", "val_balanced", "testdev_balanced", "test_balanced"),
        *("train_all", "val_all", "testdev_all", "test_all", "challenge_all", "submission_all"),
        *_VLT5,
    ),
    read=read,
    summary="Compositional questions with one answer each; balanced and unbalanced splits.",
    licence="CC BY 4.0 (annotations)",
    citation="Hudson and Manning: GQA, CVPR 2019.",
    how_to_get="questions1.2.zip and images.zip from https://cs.stanford.edu/people/dorarad/gqa/download.html; root "
    "holds SPLIT_questions.json (or the folder of shards) and images/ or images.zip.",
    bases=("", "questions1.2", "questions", "GQA", "gqa", "data"),
    expected={
        "train_balanced": 943000,
        "val_balanced": 132062,
        "testdev_balanced": 12578,
        "test_balanced": 95336,
        "test_all": 1340048,
    },
    hub=(HubSource(repo="lmms-lab/GQA", note="images in configurations of their own"),),
)
