"""MSR-VTT: web videos with twenty captions each, in the full split, 1k-A with 9k or 7k videos and jsonl lists.

MSRVTT-QA asks open questions about them, made from the captions.
"""

from collections.abc import Iterator
from functools import partial

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._karpathy import Captioned, captioned, check_task
from weft.data.datasets._video import video_files
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source, StoredFile
from weft.data.records.video_qa import VideoQA

_LISTS = {
    "train": "train_list_full.txt",
    "val": "val_list_full.txt",
    "test": "test_list_full.txt",
    "train_9k": "train_list_jsfusion.txt",
    "train_7k": "train_list_full.txt+val_list_full.txt",
    "test_1k": "val_list_jsfusion.txt",
    "train_miech": "train_list_miech.txt",
    "test_miech": "test_list_miech.txt",
}
_OFFICIAL = {
    "train": ["train"],
    "val": ["validate", "val"],
    "test": ["test"],
    "train_7k": ["train", "validate"],
}
_DATA = ("MSRVTT_data.json", "annotation/MSR_VTT.json")
_CSV = ("MSRVTT_JSFUSION_test.csv", "msrvtt_data/MSRVTT_JSFUSION_test.csv")
_BLIP = {"train_9k": "msrvtt_train.jsonl", "train_7k": "msrvtt_train.jsonl", "test_1k": "msrvtt_test.jsonl"}


def read(source: Source, split: str, *, task: str = "retrieval") -> Iterator[Captioned]:
    """Yield `Retrieval` records (one per caption) or `Caption` records (one per video).

    Captions come from `MSRVTT_data.json`. The videos of a split come from the id lists of
    collaborative-experts where they are there, and else from the `split` field (train, val, test). Split
    "test_1k" is the 1k-A test: one fixed caption per video, from the JSFUSION table or the jsonl list.
    Where only jsonl lists are there, they are read as they are.

    Options:
        task: "caption" or "retrieval".
    """
    check_task("msrvtt", task)
    folders = ("videos", "videos/all", "MSRVTT_Videos", "TrainValVideo")
    videos = video_files(source, *folders, archives=["MSRVTT_Videos.zip"])
    official = () if split == "test_1k" else _DATA
    table = source.find_optional(*_CSV) if split == "test_1k" else None
    data = source.find_optional(*official)
    lines = source.find_optional(_BLIP[split]) if split in _BLIP else None
    if table is not None:
        rows = source.csv_rows(table, header=True)
        yield from source.build(rows, partial(_line, "video_id", "sentence", videos, task))
    elif data is None and lines is not None:
        rows = source.json_lines(lines)
        yield from source.build(rows, partial(_line, "clip_name", "caption", videos, task))
    else:
        data = data or source.find(*official or (*_CSV, _BLIP[split]))
        yield from _original(source, split, data, videos, task)


def _original(
    source: Source, split: str, data: StoredFile, videos: MediaFiles, task: str
) -> Iterator[Captioned]:
    top = data.top()
    wanted = _wanted(source, split, top)
    captions: dict[str, list[Row]] = {}
    for row in source.rows(data, top.items("sentences")):
        if row.text("video_id") in wanted:
            captions.setdefault(row.text("video_id"), []).append(row)

    def make(row: Row) -> Iterator[Captioned]:
        name = row.text("video_id")
        if name not in wanted:
            return
        own = captions.get(name)
        if not own:
            row.fail(f"video {name} must have a caption, but `sentences` has none")
        texts = [(caption.identity("sen_id"), caption.text("caption")) for caption in own]
        yield from captioned(task, videos.ref(name), name, texts, extra=row.kept("category"))

    yield from source.build(source.rows(data, top.items("videos")), make)


def _line(name_key: str, text_key: str, videos: MediaFiles, task: str, row: Row) -> Iterator[Captioned]:
    name = row.text(name_key)
    record_id = f"{name}#{row.number}"
    texts = [(record_id, row.text(text_key))]
    yield from captioned(task, videos.ref(name), name, texts, record_id=record_id)


def read_id_list(source: Source, *names: str) -> list[str] | None:
    """Return the ids of the first list that exists, one per line, or None."""
    folders = ("", "msrvtt/", "misc/datasets/msrvtt/", "structured-symlinks/")
    file = source.find_optional(*(f"{folder}{name}" for folder in folders for name in names))
    return None if file is None else [line.strip() for line in file.lines() if line.strip()]


def _wanted(source: Source, split: str, top: Row) -> set[str]:
    listed = [read_id_list(source, name) for name in _LISTS[split].split("+")]
    if None not in listed:
        return {name for ids in listed for name in ids or ()}
    if split not in _OFFICIAL:
        source.find(*(f"{folder}{_LISTS[split]}" for folder in ("", "msrvtt/", "misc/datasets/msrvtt/")))
    rows = top.subs("videos")
    return {row.text("video_id") for row in rows if row.text("split") in _OFFICIAL[split]}


def read_questions(source: Source, split: str) -> Iterator[VideoQA]:
    """Yield one `VideoQA` per question; `video_id` 7010 is the file video7010."""
    file = source.find(
        f"{split}_qa.json", f"{split}.json", f"msrvtt_qa_{split}.json", f"msrvttqa/{split}.json"
    )
    videos = video_files(source, "videos", "videos/all", "video", archives=["MSRVTT_Videos.zip"])

    def make(row: Row) -> VideoQA:
        name = f"video{row.integer('video_id')}"
        answer = row.text("answer", "")
        return VideoQA(
            id=row.identity("id"),
            video=videos.ref(name),
            media_id=name,
            question=row.text("question"),
            answers=(answer,) if answer else (),
            extra=row.kept("category_id"),
        )

    yield from source.build(source.json_rows(file), make)


SPECS = (
    DatasetSpec(
        name="msrvtt",
        record_type="retrieval",
        splits=tuple(_LISTS),
        read=read,
        summary="10,000 web videos with twenty captions each; several official and customary splits.",
        licence="not stated; do not pass the videos on",
        citation="Xu et al.: MSR-VTT, CVPR 2016; 1k-A split of Yu et al., ECCV 2018.",
        how_to_get="MSRVTT_data.json and MSRVTT_JSFUSION_test.csv (msrvtt_data.zip of CLIP4Clip), videos of the "
        "official challenge, id lists from https://github.com/albanie/collaborative-experts (misc/datasets/msrvtt); "
        "root holds them, videos under videos/.",
        bases=("", "msrvtt_data", "msrvtt", "MSRVTT"),
        hub=(HubSource(repo="friedrichor/MSR-VTT", note="configurations train_9k, train_7k, test_1k"),),
    ),
    DatasetSpec(
        name="msrvtt_qa",
        record_type="video_qa",
        splits=("train", "val", "test"),
        read=read_questions,
        summary="Open questions about web videos, one answer each.",
        licence="not stated",
        citation="Xu et al.: Video Question Answering via Gradually Refined Attention, ACM MM 2017.",
        how_to_get="MSRVTT-QA.zip from https://github.com/xudejing/video-question-answering; root holds "
        "{train,val,test}_qa.json and the MSR-VTT videos under videos/.",
        bases=("", "msrvtt_qa", "MSRVTT-QA"),
    ),
)
