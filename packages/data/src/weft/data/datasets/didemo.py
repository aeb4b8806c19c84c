"""DiDeMo: personal videos with described moments; paragraph retrieval and single descriptions."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._karpathy import check_task
from weft.data.datasets._video import video_files
from weft.data.errors import require_known
from weft.data.records.caption import Caption
from weft.data.records.record import Record
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source

_FOLDERS = ("videos", "didemo_videos", "video")
_UNITS = ("paragraph", "description")


def read(source: Source, split: str, *, unit: str = "paragraph", task: str = "retrieval") -> Iterator[Record]:
    """Yield one record per video or per description.

    Unit "paragraph" joins all descriptions of a video, in file order, as paragraph retrieval does. If the id
    list of collaborative-experts (`{split}_list.txt`) is there, only its videos are kept. Unit "description"
    keeps `extra["times"]` (annotated segments, numbered from 0, five seconds each).

    Options:
        unit: "paragraph" or "description".
        task: "retrieval", or "caption" (one record per video with all its descriptions).
    """
    check_task("didemo", task)
    require_known("unit of didemo", _UNITS, unit)
    lists = ("", "didemo/", "misc/datasets/didemo/")
    ids = source.find_optional(*(f"{folder}{split}_list.txt" for folder in lists))
    listed = {line.strip() for line in ids.lines() if line.strip()} if ids else None
    lines = source.find_optional(f"didemo_{split}.jsonl", f"didemo_retrieval_{split}.jsonl")
    if lines is not None and unit == "paragraph":
        found = video_files(source, *_FOLDERS)
        yield from source.build(source.json_lines(lines), lambda row: _line(row, found))
        return
    file = source.find(f"{split}_data.json", f"data/{split}_data.json")
    rows = [row for row in source.json_rows(file) if listed is None or row.text("video") in listed]
    videos = MediaFiles(source, _FOLDERS, kind="video", what="videos")
    if unit == "description" and task == "retrieval":
        yield from source.build(rows, lambda row: _description(row, videos))
        return
    by_video: dict[str, list[Row]] = {}
    for row in rows:
        by_video.setdefault(row.text("video"), []).append(row)

    def make(row: Row) -> Record | None:
        name = row.text("video")
        own = by_video[name]
        if own[0] is not row:
            return None
        texts = tuple(item.text("description").strip() for item in own)
        if task == "caption":
            return Caption(id=name, media=videos.ref(name), media_id=name, captions=texts)
        return Retrieval(id=name, media=videos.ref(name), media_id=name, text=" ".join(texts), text_id=name)

    yield from source.build(rows, make)


def _line(row: Row, videos: MediaFiles) -> Retrieval:
    name, text = row.text("clip_name"), row.text("caption")
    record_id = f"{name}#{row.number}"
    return Retrieval(id=record_id, media=videos.ref(name), media_id=name, text=text, text_id=record_id)


def _description(row: Row, videos: MediaFiles) -> Retrieval:
    text_id, name = row.identity("annotation_id"), row.text("video")
    times = row.items("times") if row.has("times") else []
    for value in times:
        if not isinstance(value, list) or len(value) != 2:
            row.fail(f"`times` must be pairs of first and last segment, but holds {value!r}")
    return Retrieval(
        id=text_id,
        media=videos.ref(name),
        media_id=name,
        text=row.text("description"),
        text_id=text_id,
        extra={
            "times": times,
            "num_segments": row.integer("num_segments") if row.has("num_segments") else None,
        },
    )


SPEC = DatasetSpec(
    name="didemo",
    record_type="retrieval",
    splits=("train", "val", "test"),
    read=read,
    summary="Personal videos with descriptions of moments; paragraph-to-video retrieval.",
    licence="Annotations BSD-2; videos YFCC, Creative Commons",
    citation="Hendricks et al.: Localizing Moments in Video with Natural Language, ICCV 2017.",
    how_to_get="Clone https://github.com/LisaAnne/LocalizingMoments (data/SPLIT_data.json), videos by its scripts into "
    "videos/; optionally SPLIT_list.txt from https://github.com/albanie/collaborative-experts.",
    bases=("", "data", "didemo"),
    hub=(HubSource(repo="friedrichor/DiDeMo"),),
)
