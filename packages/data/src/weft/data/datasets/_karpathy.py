"""The Karpathy split file of captioned images (COCO, Flickr30K), and the lists that BLIP made of it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from weft.data.errors import unknown_name
from weft.data.media.reference import MediaRef
from weft.data.records.caption import Caption
from weft.data.records.record import EMPTY
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source, StoredFile

TASKS = ("caption", "retrieval")
Captioned = Caption | Retrieval
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
) -> Iterator[Captioned]:
    """Yield one `Caption` with all texts of a medium, or one `Retrieval` for each; `texts` are pairs of id and words.

    `record_id` is that of the `Caption`, where it is not that of the medium.
    """
    said: dict[str, Any] = {"media": media, "media_id": media_id, "extra": extra}
    if task == "caption":
        yield Caption(id=record_id or media_id, captions=tuple(text for _, text in texts), **said)
    else:
        yield from (Retrieval(id=text_id, text=text, text_id=text_id, **said) for text_id, text in texts)


def read_karpathy(
    source: Source, file: StoredFile, splits: Collection[str], locate: Locate, task: str
) -> Iterator[Captioned]:
    """Yield the images of some official splits from `dataset_coco.json` or its like, as `captioned` does.

    `locate` maps folder and file name to a reference.
    """

    def make(row: Row) -> Iterator[Captioned]:
        if row.text("split") not in splits:
            return
        file_name = row.text("filename")
        media = locate(row.text("filepath", ""), file_name)
        media_id = row.identity("cocoid") if row.has("cocoid") else file_name.rsplit(".", 1)[0]
        sentences = row.subs("sentences")
        if not sentences:
            row.fail("`sentences` must not be empty")
        extra = {"file_name": file_name, "split": row.text("split")}
        ids = [
            s.identity("sentid") if s.has("sentid") else f"{media_id}.{k}" for k, s in enumerate(sentences)
        ]
        texts = [(text_id, sentence.text("raw")) for text_id, sentence in zip(ids, sentences, strict=True)]
        yield from captioned(task, media, media_id, texts, extra=extra)

    yield from source.build(source.json_rows(file, "images"), make)


def read_blip(source: Source, file: StoredFile, locate: Locate, task: str) -> Iterator[Captioned]:
    """Yield records of the lists used by BLIP and UniAdapter, such as `coco_karpathy_train.json`.

    Training lists have one row per caption, evaluation lists one row per image with all its captions. Arguments are as
    for `read_karpathy`.
    """

    def make(row: Row) -> Iterator[Captioned]:
        folder, _, file_name = row.text("image").rpartition("/")
        media, media_id = locate(folder, file_name), file_name.rsplit(".", 1)[0]
        texts = [(f"{row.number}.{k}", text) for k, text in enumerate(row.texts("caption"))]
        record_id = f"{media_id}#{row.number}" if isinstance(row.field("caption"), str) else media_id
        yield from captioned(task, media, media_id, texts, record_id=record_id)

    yield from source.build(source.json_rows(file), make)
