"""TVR: sentences that describe moments in TV clips (video moment retrieval)."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import VideoFiles, span_of
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source


def read(source: Source, split: str) -> Iterator[Retrieval]:
    """Yield one `Retrieval` per description; `extra["type"]` says whether it needs video, text or both."""
    file = source.find(f"tvr_{split}_release.jsonl", f"tvr/tvr_{split}_release.jsonl")
    videos = VideoFiles(source, ["videos", "tv_videos", "frames"])

    def make(row: Row) -> Retrieval:
        name = row.text("vid_name")
        start, end = span_of(row, "ts") if row.has("ts") else (None, None)
        text_id = row.identity("desc_id")
        return Retrieval(
            id=text_id,
            media=videos.ref(name, start, end),
            media_id=name,
            text=row.text("desc"),
            text_id=text_id,
            extra={"type": row.text("type", ""), "duration": row.number_of("duration")},
        )

    yield from source.build(source.json_lines(file), make)


SPEC = DatasetSpec(
    name="tvr",
    record_type="retrieval",
    splits=("train", "val", "test_public"),
    read=read,
    summary="Descriptions of moments in TV clips.",
    licence="Annotations MIT; frames closed, features only",
    citation="Lei et al.: TVR, ECCV 2020.",
    how_to_get="Clone https://github.com/jayleicn/TVRetrieval; root is the clone or its folder data/.",
    bases=("", "data", "ann"),
    expected={"val": 10895},
)
