"""TVQA: five-way questions about clips of TV shows, with subtitles."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import Speech, Subtitles, VideoFiles, span_of
from weft.data.records.record import Record
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.records.video_mc import VideoMC

NUM_OPTIONS = 5


def read(source: Source, split: str, *, subtitles: Speech = "span") -> Iterator[Record]:
    """Yield one `VideoMC` per question.

    Args:
        source: Where the files lie.
        split: Split name.
        subtitles: Spoken text to join, where the subtitle file is there: that of the "span", of the whole "clip", or
            False for none.
    """
    file = source.find(
        f"tvqa_{split}.jsonl", f"tvqa/tvqa_{split}.jsonl", f"tvqa_qa_release/tvqa_{split}.jsonl"
    )
    speech = Subtitles(source, "tv_subtitles.jsonl", "tvqa_subtitles.jsonl", scope=subtitles)
    videos = VideoFiles(source, ["videos", "tv_videos", "frames"])

    def make(row: Row) -> VideoMC:
        name = row.text("vid_name")
        start, end = span_of(row, "ts")
        return VideoMC(
            id=row.identity("qid"),
            video=videos.ref(name, start, end),
            media_id=name,
            question=row.text("q"),
            options=tuple(row.text(f"a{k}") for k in range(NUM_OPTIONS)),
            answer=row.integer("answer_idx") if row.has("answer_idx") else None,
            subtitles=speech.between(name, start, end),
            extra={"show_name": row.text("show_name", ""), "ts": row.field("ts")},
        )

    yield from source.build(source.json_lines(file), make)


SPEC = DatasetSpec(
    name="tvqa",
    record_type="video_mc",
    splits=("train", "val", "test_public", "test_release"),
    read=read,
    summary="Five-way questions about TV clips, with subtitles and spans.",
    licence="Code MIT; frames closed, features only",
    citation="Lei et al.: TVQA, EMNLP 2018.",
    how_to_get="tvqa_qa_release.tar.gz and tvqa_subtitles from https://nlp.cs.unc.edu/projects/tvqa/, or "
    "the VALUE "
    "files ann/tvqa/ and ann/tv_subtitles.jsonl; root holds tvqa_SPLIT.jsonl.",
    bases=("", "ann", "video/ann", "tvqa"),
    expected={"train": 122039, "val": 15253, "test_public": 7623},
)
