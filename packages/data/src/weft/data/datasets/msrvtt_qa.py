"""MSRVTT-QA: open questions about MSR-VTT videos, made from captions."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import video_files
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.records.video_qa import VideoQA


def read(source: Source, split: str) -> Iterator[VideoQA]:
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


SPEC = DatasetSpec(
    name="msrvtt_qa",
    record_type="video_qa",
    splits=("train", "val", "test"),
    read=read,
    summary="Open questions about web videos, one answer each.",
    licence="not stated",
    citation="Xu et al.: Video Question Answering via Gradually Refined Attention, ACM MM 2017.",
    how_to_get="MSRVTT-QA.zip from https://github.com/xudejing/video-question-answering; root holds "
    "{train,val,test}_qa.json and the MSR-VTT videos under videos/.",
    bases=("", "msrvtt_qa", "MSRVTT-QA"),
)
