"""How2R: moments of instructional videos described in a sentence (video moment retrieval)."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import VideoFiles, span_of
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source


def read(source: Source, split: str) -> Iterator[Retrieval]:
    """Yield one `Retrieval` per description.

    The official CSV has no header: video, span of the clip, span of the moment, description. The media is the
    moment; `extra["clip"]` keeps the clip around it.
    """
    file = source.find(f"how2R_{split}_release.csv", f"how2R/how2R_{split}_release.csv")
    videos = VideoFiles(source, ["videos", "how2_videos"])

    def make(row: Row) -> Retrieval:
        if len(row.value) != 4:
            row.fail(f"must have 4 columns (video, clip, moment, description), but has {len(row.value)}")
        name, (start, end) = row.text(0), span_of(row, 2)
        return Retrieval(
            id=f"{split}-{row.number}",
            media=videos.ref(name, start, end),
            media_id=f"{name}:{row.text(2)}",
            text=row.text(3),
            text_id=f"{split}-{row.number}",
            extra={"clip": span_of(row, 1), "vid_name": name},
        )

    yield from source.build(source.csv_rows(file, header=False), make)


SPEC = DatasetSpec(
    name="how2r",
    record_type="retrieval",
    splits=("train", "val", "test_public"),
    read=read,
    summary="Descriptions of moments in instructional videos.",
    licence="MIT",
    citation="Li et al.: HERO, EMNLP 2020.",
    how_to_get="Clone https://github.com/ych133/How2R-and-How2QA; root is the clone or its folder how2R/.",
    bases=("", "how2R"),
)
