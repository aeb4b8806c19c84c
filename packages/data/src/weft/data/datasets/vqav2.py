"""VQA v2: open questions about COCO images with ten answers each, in the official and the Karpathy form."""

from collections.abc import Iterator, Mapping
from typing import Any

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._answers import leave_one_out
from weft.data.datasets._coco import CocoImages, is_coco_stem
from weft.data.datasets._name_pattern import NamePattern
from weft.data.records.image_qa import ImageQA
from weft.data.records.rows import Row
from weft.data.records.source import Source

_SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
_IMAGE_SUBSETS = {**_SUBSETS, "test-dev": "test2015"}


def read(
    source: Source,
    split: str,
    *,
    questions: str | None = None,
    annotations: str | None = None,
    images: str | None = None,
) -> Iterator[ImageQA]:
    """Yield one `ImageQA` per question, in file order.

    Official splits (train, val, test, test-dev) join a questions file with an annotations file by question
    id; test splits have no annotations. Splits `karpathy_*` read the lists that VL-T5 and VL-Adapter use.

    Options:
        questions: Path of the questions file below the root, where it has no official name.
        annotations: Path of the annotations file below the root.
        images: Paths of the images below the root, where they have no official names: words in braces are fields of a
            question, such as `images/{image_id:04}.png` (filled up with zeros to four digits) or `{file_name}`.

    Raises:
        InvalidArgumentError: If `images` is no such pattern.
    """
    pattern = None if images is None else NamePattern("images", images)
    make = _karpathy if split.startswith("karpathy_") else _official
    yield from make(source, split, pattern, questions, annotations)


def _official(
    source: Source, split: str, pattern: NamePattern | None, questions: str | None, annotations: str | None
) -> Iterator[ImageQA]:
    subset, shown, images = _SUBSETS[split], _IMAGE_SUBSETS[split], CocoImages(source)
    names = [f"v2_OpenEnded_mscoco_{subset}_questions.json", f"OpenEnded_mscoco_{subset}_questions.json"]
    rows = source.json_rows(source.find(*([questions] if questions else names)), "questions")
    answers: dict[str, Row] = {}
    if split in ("train", "val") or annotations:
        truth = source.find(annotations or f"v2_mscoco_{subset}_annotations.json")
        answers = source.by_id(source.json_rows(truth, "annotations"), "question_id")

    def make(row: Row) -> ImageQA:
        question_id, image_id = row.identity("question_id"), row.identity("image_id")
        if answers and question_id not in answers:
            row.fail(f"question {question_id} must have an annotation, but the annotations file has none")
        return ImageQA(
            id=question_id,
            image=pattern.image(source, row) if pattern else images.by_number(shown, image_id),
            image_id=image_id,
            question=row.text("question"),
            **(_truth(answers[question_id]) if answers else {}),
        )

    yield from source.build(rows, make)


def _karpathy(
    source: Source, split: str, pattern: NamePattern | None, questions: str | None, annotations: str | None
) -> Iterator[ImageQA]:
    file, images = source.find(questions or f"{split}.json"), CocoImages(source)
    official: dict[str, Row] = {}
    for subset in ("train2014", "val2014"):
        truth = source.find_optional(annotations or f"v2_mscoco_{subset}_annotations.json")
        if truth is not None:
            official |= source.by_id(source.json_rows(truth, "annotations"), "question_id")

    def make(row: Row) -> ImageQA:
        question_id, stem = row.identity("question_id"), row.text("img_id")
        if not is_coco_stem(stem):
            row.fail(f"`img_id` must look like 'COCO_val2014_000000000042', but is {stem!r}")
        label = row.mapping("label") if row.has("label") else {}
        extra: dict[str, Any] = {"karpathy_label": label}
        if row.has("is_topk_optimal"):
            extra["is_topk_optimal"] = row.boolean("is_topk_optimal")
        known = official.get(question_id)
        values = _truth(row, label) if known is None else _truth(known)
        return ImageQA(
            id=question_id,
            image=pattern.image(source, row) if pattern else images.by_stem(stem),
            image_id=stem,
            question=row.text("sent") if row.has("sent") else row.text("question"),
            extra=extra,
            **values,
        )

    yield from source.build(source.json_rows(file), make)


def _truth(row: Row, label: Mapping[str, float] | None = None) -> Mapping[str, Any]:
    """The fields of the answers; where `label` is given and there are none, it stands for their scores."""
    answers: tuple[str, ...] = ()
    if label is None or row.has("answers"):
        answers = tuple(answer.text("answer") for answer in row.subs("answers"))
        label = leave_one_out(answers) if answers else {}
    return {
        "answers": answers,
        "question_type": row.text("question_type", ""),
        "answer_type": row.text("answer_type", ""),
        "soft_targets": dict(label),
    }


SPEC = DatasetSpec(
    name="vqav2",
    record_type="image_qa",
    splits=("train", "val", "test", "test-dev", "karpathy_train", "karpathy_val", "karpathy_test"),
    read=read,
    summary="Open questions about COCO photos, ten answers each.",
    licence="Annotations CC BY 4.0; images under Flickr terms",
    citation="Goyal et al.: Making the V in VQA Matter, CVPR 2017.",
    how_to_get="Questions and annotations from https://visualqa.org/download.html, images (train2014, val2014, "
    "test2015) from https://cocodataset.org; root holds the JSON files and the image folders or zips. The Karpathy "
    "lists karpathy_{train,val,test}.json come with VL-T5.",
    bases=("", "vqa", "VQA", "annotations", "questions", "data"),
    expected={"train": 443757, "val": 214354, "test": 447793},
    hub=(HubSource(repo="lmms-lab/VQAv2", note="no train split; moved to lmms-lab-encoder"),),
)
