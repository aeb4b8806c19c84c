"""TVC: captions of moments in TV clips, in the official and the VALUE form."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import Speech, Subtitles, VideoFiles, span_of
from weft.data.records.caption import Caption
from weft.data.records.rows import Row
from weft.data.records.source import Source


def read(
    source: Source, split: str, *, subtitles: Speech = "span", file: str | None = None
) -> Iterator[Caption]:
    """Yield one `Caption` per clip with all its descriptions (none where they are hidden).

    Args:
        source: Where the files are.
        split: Split name.
        subtitles: Spoken text to join, where the subtitle file is there: that of the "span", of the whole "clip", or
            False for none.
        file: Path of the annotation file below the root, where it has no official name; files of predictions
            have the same form.
    """
    stored = source.find(file or f"tvc_{split}_release.jsonl", f"tvc/tvc_{split}_release.jsonl")
    speech = Subtitles(source, "tv_subtitles.jsonl", "tvqa_subtitles.jsonl", scope=subtitles)
    videos = VideoFiles(source, ["videos", "tv_videos", "frames"])

    def make(row: Row) -> Caption:
        name, (start, end) = row.text("vid_name"), span_of(row, "ts")
        descriptions = [row.sub(value) for value in row.items("descs")] if row.has("descs") else []
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


SPEC = DatasetSpec(
    name="tvc",
    record_type="caption",
    splits=("train", "val", "test_public", "test"),
    read=read,
    summary="Captions of moments in TV clips; two per clip in training, four in validation.",
    licence="Annotations MIT; frames closed, features only",
    citation="Lei et al.: TVR, ECCV 2020.",
    how_to_get="Clone https://github.com/jayleicn/TVCaption (folder data/), or the VALUE files ann/tvc/; root holds "
    "tvc_SPLIT_release.jsonl.",
    bases=("", "data", "ann", "video/ann"),
    expected={"val": 10895},
)
