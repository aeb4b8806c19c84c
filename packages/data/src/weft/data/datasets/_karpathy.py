"""The Karpathy split file of captioned images (COCO, Flickr30K), and the lists that BLIP made of it."""

from collections.abc import Callable, Iterator

from weft.data.errors import unknown_name
from weft.data.media.reference import MediaRef
from weft.data.records.caption import Caption
from weft.data.records.record import Record
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source, StoredFile

TASKS = ("caption", "retrieval")
Locate = Callable[[str, str], MediaRef]


def check_task(name: str, task: str) -> None:
    """Refuse a task other than caption and retrieval."""
    if task not in TASKS:
        raise unknown_name(f"task of {name}", task, TASKS)


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
        if task == "caption":
            captions = tuple(sentence.text("raw") for sentence in sentences)
            yield Caption(id=media_id, media=media, media_id=media_id, captions=captions, extra=extra)
            return
        for position, sentence in enumerate(sentences):
            text_id = sentence.identity("sentid") if sentence.has("sentid") else f"{media_id}.{position}"
            yield Retrieval(
                id=text_id,
                media=media,
                media_id=media_id,
                text=sentence.text("raw"),
                text_id=text_id,
                extra=extra,
            )

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
        captions = row.texts("caption")
        if task == "caption":
            record_id = f"{media_id}#{row.number}" if isinstance(row.field("caption"), str) else media_id
            yield Caption(id=record_id, media=media, media_id=media_id, captions=captions)
            return
        for position, caption in enumerate(captions):
            text_id = f"{row.number}.{position}"
            yield Retrieval(id=text_id, media=media, media_id=media_id, text=caption, text_id=text_id)

    yield from source.build(source.rows(file, file.json()), make)
