"""Clips of TV shows with subtitles: TVQA's questions, TVR's moments to find and TVC's captions."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import Speech, Subtitles, multiple_choice, span_of, video_files
from weft.data.records.caption import Caption
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.records.video_mc import VideoMC

NUM_OPTIONS = 5
_VIDEOS = ("videos", "tv_videos", "frames")
_SUBTITLES = ("tv_subtitles.jsonl", "tvqa_subtitles.jsonl")


def read_questions(source: Source, split: str, *, subtitles: Speech = "span") -> Iterator[VideoMC]:
    """Yield one `VideoMC` per question.

    Options:
        subtitles: Spoken text to join, where its file is there: that of the "span", of the whole "clip", or False.
    """
    name = f"tvqa_{split}.jsonl"
    file = source.find(name, f"tvqa/{name}", f"tvqa_qa_release/{name}")
    speech = Subtitles(source, *_SUBTITLES, scope=subtitles)
    videos = video_files(source, *_VIDEOS)

    def make(row: Row) -> VideoMC:
        return multiple_choice(row, videos, speech, NUM_OPTIONS, show_name=row.text("show_name", ""))

    yield from source.build(source.json_lines(file), make)


def read_moments(source: Source, split: str) -> Iterator[Retrieval]:
    """Yield one `Retrieval` per description; `extra["type"]` says whether it needs video, text or both."""
    file = source.find(f"tvr_{split}_release.jsonl", f"tvr/tvr_{split}_release.jsonl")
    videos = video_files(source, *_VIDEOS)

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


def read_captions(
    source: Source, split: str, *, subtitles: Speech = "span", file: str | None = None
) -> Iterator[Caption]:
    """Yield one `Caption` per clip with all its descriptions (none where they are hidden).

    Options:
        subtitles: As for TVQA.
        file: Path of the annotation file below the root, where it has no official name; files of predictions
            have the same form.
    """
    stored = source.find(file or f"tvc_{split}_release.jsonl", f"tvc/tvc_{split}_release.jsonl")
    speech = Subtitles(source, *_SUBTITLES, scope=subtitles)
    videos = video_files(source, *_VIDEOS)

    def make(row: Row) -> Caption:
        name, (start, end) = row.text("vid_name"), span_of(row, "ts")
        descriptions = row.subs("descs") if row.has("descs") else []
        clip_id = row.identity("clip_id")
        return Caption(
            id=clip_id,
            media=videos.ref(name, start, end),
            media_id=clip_id,
            captions=tuple(description.text("desc") for description in descriptions),
            subtitles=speech.between(name, start, end),
            extra={
                "vid_name": name,
                "ts": row.field("ts"),
                "types": tuple(description.text("type", "") for description in descriptions),
            },
        )

    yield from source.build(source.json_lines(stored), make)


SPECS = (
    DatasetSpec(
        name="tvqa",
        record_type="video_mc",
        splits=("train", "val", "test_public", "test_release"),
        read=read_questions,
        summary="Five-way questions about TV clips, with subtitles and spans.",
        licence="Code MIT; frames closed, features only",
        citation="Lei et al.: TVQA, EMNLP 2018.",
        how_to_get="tvqa_qa_release.tar.gz and tvqa_subtitles from https://nlp.cs.unc.edu/projects/tvqa/, or the VALUE "
        "files ann/tvqa/ and ann/tv_subtitles.jsonl; root holds tvqa_SPLIT.jsonl.",
        bases=("", "ann", "video/ann", "tvqa"),
        expected={"train": 122039, "val": 15253, "test_public": 7623},
    ),
    DatasetSpec(
        name="tvr",
        record_type="retrieval",
        splits=("train", "val", "test_public"),
        read=read_moments,
        summary="Descriptions of moments in TV clips.",
        licence="Annotations MIT; frames closed, features only",
        citation="Lei et al.: TVR, ECCV 2020.",
        how_to_get="Clone https://github.com/jayleicn/TVRetrieval; root is the clone or its folder data/.",
        bases=("", "data", "ann"),
        expected={"val": 10895},
    ),
    DatasetSpec(
        name="tvc",
        record_type="caption",
        splits=("train", "val", "test_public", "test"),
        read=read_captions,
        summary="Captions of moments in TV clips; two per clip in training, four in validation.",
        licence="Annotations MIT; frames closed, features only",
        citation="Lei et al.: TVR, ECCV 2020.",
        how_to_get="Clone https://github.com/jayleicn/TVCaption (folder data/), or the VALUE files ann/tvc/; root "
        "holds tvc_SPLIT_release.jsonl.",
        bases=("", "data", "ann", "video/ann"),
        expected={"val": 10895},
    ),
)
