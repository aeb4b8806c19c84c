"""MSR-VTT: web videos with twenty captions each; the full split, 1k-A with 9k or 7k videos, jsonl lists."""

from collections.abc import Iterator
from functools import partial

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._karpathy import captioned, check_task
from weft.data.datasets._video import VideoFiles
from weft.data.records.caption import Caption
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source, StoredFile

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
_CSV = ("MSRVTT_JSFUSION_test.csv", "msrvtt_data/MSRVTT_JSFUSION_test.csv")
_BLIP = {"train_9k": "msrvtt_train.jsonl", "train_7k": "msrvtt_train.jsonl", "test_1k": "msrvtt_test.jsonl"}


def read(source: Source, split: str, *, task: str = "retrieval") -> Iterator[Caption | Retrieval]:
    """Yield `Retrieval` records (one per caption) or `Caption` records (one per video).

    Captions come from `MSRVTT_data.json`. The videos of a split come from the id lists of
    collaborative-experts where they are there, and else from the `split` field (train, val, test). Split
    "test_1k" is the 1k-A test: one fixed caption per video, from the JSFUSION table or the jsonl list.
    Where only jsonl lists are there, they are read as they are.

    Args:
        source: Where the files are.
        split: Split name.
        task: "caption" or "retrieval".
    """
    check_task("msrvtt", task)
    videos = VideoFiles(
        source, ["videos", "videos/all", "MSRVTT_Videos", "TrainValVideo"], ["MSRVTT_Videos.zip"]
    )
    table = source.find_optional(*_CSV) if split == "test_1k" else None
    lines = source.find_optional(_BLIP[split]) if split in _BLIP else None
    if table is not None:
        rows = source.csv_rows(table, header=True)
        yield from source.build(rows, partial(_line, "video_id", "sentence", videos, task))
        return
    data = None if split == "test_1k" else source.find_optional("MSRVTT_data.json", "annotation/MSR_VTT.json")
    if data is None and lines is not None:
        rows = source.json_lines(lines)
        yield from source.build(rows, partial(_line, "clip_name", "caption", videos, task))
        return
    if data is None:
        if split == "test_1k":
            source.find(*_CSV, _BLIP[split])
        data = source.find("MSRVTT_data.json", "annotation/MSR_VTT.json")
    yield from _original(source, split, data, videos, task)


def _original(
    source: Source, split: str, data: StoredFile, videos: VideoFiles, task: str
) -> Iterator[Caption | Retrieval]:
    top = Row(data.json(), data.name, "top")
    wanted = _wanted(source, split, top)
    captions: dict[str, list[Row]] = {}
    for row in source.rows(data, top.items("sentences")):
        if row.text("video_id") in wanted:
            captions.setdefault(row.text("video_id"), []).append(row)

    def make(row: Row) -> Iterator[Caption | Retrieval]:
        name = row.text("video_id")
        if name not in wanted:
            return
        own = captions.get(name)
        if not own:
            row.fail(f"video {name} must have a caption, but `sentences` has none")
        extra = {"category": row.field("category")} if row.has("category") else {}
        texts = [(caption.identity("sen_id"), caption.text("caption")) for caption in own]
        yield from captioned(task, videos.ref(name), name, texts, extra=extra)

    yield from source.build(source.rows(data, top.items("videos")), make)


def _line(
    name_key: str, text_key: str, videos: VideoFiles, task: str, row: Row
) -> Iterator[Caption | Retrieval]:
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
    listed: set[str] = set()
    for name in _LISTS[split].split("+"):
        ids = read_id_list(source, name)
        if ids is None:
            break
        listed.update(ids)
    else:
        return listed
    official = {
        "train": ["train"],
        "val": ["validate", "val"],
        "test": ["test"],
        "train_7k": ["train", "validate"],
    }
    if split not in official:
        source.find(*(f"{folder}{_LISTS[split]}" for folder in ("", "msrvtt/", "misc/datasets/msrvtt/")))
    rows = [top.sub(value) for value in top.items("videos")]
    return {row.text("video_id") for row in rows if row.text("split") in official[split]}


SPEC = DatasetSpec(
    name="msrvtt",
    record_type="retrieval",
    splits=tuple(_LISTS),
    read=read,
    summary="10,000 web videos with twenty captions each; several official and customary splits.",
    licence="not stated; do not pass the videos on",
    citation="Xu et al.: MSR-VTT, CVPR 2016; 1k-A split of Yu et al., ECCV 2018.",
    how_to_get="MSRVTT_data.json and MSRVTT_JSFUSION_test.csv (msrvtt_data.zip of CLIP4Clip), videos of the official "
    "challenge, id lists from https://github.com/albanie/collaborative-experts (misc/datasets/msrvtt); root holds "
    "them, videos under videos/.",
    bases=("", "msrvtt_data", "msrvtt", "MSRVTT"),
    hub=(HubSource(repo="friedrichor/MSR-VTT", note="configurations train_9k, train_7k, test_1k"),),
)
