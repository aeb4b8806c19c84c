"""The Karpathy split file of captioned images (COCO, Flickr30K), and the lists that BLIP made of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from weft.data.errors import unknown_name
from weft.data.media.reference import MediaRef
from weft.data.records.caption import Caption
from weft.data.records.record import EMPTY, Record
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source, StoredFile

TASKS = ("caption", "retrieval")
Locate = Callable[[str, str], MediaRef]


def check_task(name: str, task: str, *others: str) -> None:
    """Refuse a task other than caption, retrieval and further ones of a data set."""
    if task not in TASKS:
        raise unknown_name(f"task of {name}", task, (*TASKS, *others))


def captioned(
    task: str,
    media: MediaRef,
    media_id: str,
    texts: Sequence[tuple[str, str]],
    *,
    record_id: str = "",
    extra: Mapping[str, Any] = EMPTY,
) -> Iterator[Caption | Retrieval]:
    """Yield one `Caption` with all texts of a medium, or one `Retrieval` for each.

    Args:
        task: "caption" or "retrieval".
        media: The medium.
        media_id: Its identity.
        texts: Id and words of each text.
        record_id: Id of the `Caption`, where it is not that of the medium.
        extra: Official fields.
    """
    if task == "caption":
        captions = tuple(text for _, text in texts)
        yield Caption(
            id=record_id or media_id, media=media, media_id=media_id, captions=captions, extra=extra
        )
        return
    for text_id, text in texts:
        yield Retrieval(id=text_id, media=media, media_id=media_id, text=text, text_id=text_id, extra=extra)


def read_karpathy(
    source: Source, file: StoredFile, accept: Callable[[str], bool], locate: Locate, task: str
) -> Iterator[Record]:
    """Yield the images whose split `accept` takes.

    Args:
        source: Root of the data set.
        file: `dataset_coco.json` or its like.
        accept: Takes the official split of an image.
        locate: Maps (folder, file name) to a reference.
        task: "caption" for one record per image, "retrieval" for one per sentence.
    """

    def make(row: Row) -> Iterator[Record]:
        if not accept(row.text("split")):
            return
        file_name = row.text("filename")
        media = locate(row.text("filepath", ""), file_name)
        media_id = row.identity("cocoid") if row.has("cocoid") else file_name.rsplit(".", 1)[0]
        sentences = [row.sub(value) for value in row.items("sentences")]
        if not sentences:
            row.fail("`sentences` must not be empty")
        extra = {"file_name": file_name, "split": row.text("split")}
        ids = [
            s.identity("sentid") if s.has("sentid") else f"{media_id}.{k}" for k, s in enumerate(sentences)
        ]
        texts = [(text_id, sentence.text("raw")) for text_id, sentence in zip(ids, sentences, strict=True)]
        yield from captioned(task, media, media_id, texts, extra=extra)

    yield from source.build(source.rows(file, Row(file.json(), file.name, "top").items("images")), make)


def read_blip(source: Source, file: StoredFile, locate: Locate, task: str) -> Iterator[Record]:
    """Yield records of the lists used by BLIP and UniAdapter.

    Training lists have one row per caption, evaluation lists one row per image with all its captions.

    Args:
        source: Root of the data set.
        file: `coco_karpathy_train.json` or its like.
        locate: Maps (folder, file name) to a reference.
        task: "caption" or "retrieval".
    """

    def make(row: Row) -> Iterator[Record]:
        folder, _, file_name = row.text("image").rpartition("/")
        media, media_id = locate(folder, file_name), file_name.rsplit(".", 1)[0]
        texts = [(f"{row.number}.{k}", text) for k, text in enumerate(row.texts("caption"))]
        record_id = f"{media_id}#{row.number}" if isinstance(row.field("caption"), str) else media_id
        yield from captioned(task, media, media_id, texts, record_id=record_id)

    yield from source.build(source.rows(file, file.json()), make)
