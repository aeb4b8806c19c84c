"""TVQA: five-way questions about clips of TV shows, with subtitles."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import Speech, Subtitles, VideoFiles, multiple_choice
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.records.video_mc import VideoMC

NUM_OPTIONS = 5


def read(source: Source, split: str, *, subtitles: Speech = "span") -> Iterator[VideoMC]:
    """Yield one `VideoMC` per question.

    Args:
        source: Where the files are.
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
        return multiple_choice(row, videos, speech, NUM_OPTIONS, show_name=row.text("show_name", ""))

    yield from source.build(source.json_lines(file), make)


SPEC = DatasetSpec(
    name="tvqa",
    record_type="video_mc",
    splits=("train", "val", "test_public", "test_release"),
    read=read,
    summary="Five-way questions about TV clips, with subtitles and spans.",
    licence="Code MIT; frames closed, features only",
    citation="Lei et al.: TVQA, EMNLP 2018.",
    how_to_get="tvqa_qa_release.tar.gz and tvqa_subtitles from https://nlp.cs.unc.edu/projects/tvqa/, or the VALUE "
    "files ann/tvqa/ and ann/tv_subtitles.jsonl; root holds tvqa_SPLIT.jsonl.",
    bases=("", "ann", "video/ann", "tvqa"),
    expected={"train": 122039, "val": 15253, "test_public": 7623},
)
