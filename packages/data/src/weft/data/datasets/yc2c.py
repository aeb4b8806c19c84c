"""YC2C: captions of cooking steps (YouCook2), as the VALUE lines or the original file."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._video import Speech, Subtitles, span_of, video_files
from weft.data.records.caption import Caption
from weft.data.records.rows import Row
from weft.data.records.source import Source

_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


def read(source: Source, split: str, *, subtitles: Speech = "span") -> Iterator[Caption]:
    """Yield one `Caption` per step.

    Options:
        subtitles: Spoken text to join, where its file is there: that of the "span", of the whole "clip", or False.
    """
    file = source.find(
        f"yc2c_{split}_release.jsonl",
        f"yc2c/yc2c_{split}_release.jsonl",
        "youcookii_annotations_trainval.json",
        "annotations/youcookii_annotations_trainval.json",
    )
    speech = Subtitles(source, "yc2_subtitles.jsonl", scope=subtitles)
    videos = video_files(source, "videos", "yc2_videos", f"raw_videos/{_SUBSETS[split]}")

    def make_value(row: Row) -> Caption:
        name = row.text("vid_name") if row.has("vid_name") else row.text("vid_id")
        start, end = span_of(row, "ts") if row.has("ts") else (None, None)
        clip_id = row.identity("clip_id")
        texts = [text.text("desc") for text in (row.subs("descs") if row.has("descs") else ())]
        return Caption(
            id=clip_id,
            media=videos.ref(name, start, end),
            media_id=clip_id,
            captions=tuple(texts),
            subtitles=speech.between(name, start, end),
            extra={"vid_name": name},
        )

    def make_original(row: Row) -> Iterator[Caption]:
        if row.text("subset") != _SUBSETS[split]:
            return
        for step in row.subs("annotations"):
            start, end = step.span("segment")
            step_id = f"{row.number}_{step.identity('id')}"
            yield Caption(
                id=step_id,
                media=videos.ref(str(row.number), start, end),
                media_id=step_id,
                captions=(step.text("sentence"),),
                subtitles=speech.between(str(row.number), start, end),
                extra={"vid_name": str(row.number), "recipe_type": row.identity("recipe_type")},
            )

    if ".jsonl" in file.path:
        yield from source.build(source.json_lines(file), make_value)
        return
    database = file.top().mapping("database")
    yield from source.build((Row(value, file.name, key) for key, value in database.items()), make_original)


SPEC = DatasetSpec(
    name="yc2c",
    record_type="caption",
    splits=("train", "val", "test"),
    read=read,
    summary="Captions of steps in cooking videos.",
    licence="not stated",
    citation="Zhou et al.: YouCook2, AAAI 2018; VALUE, NeurIPS 2021.",
    how_to_get="youcookii_annotations_trainval.json from http://youcook2.eecs.umich.edu/, or the VALUE files "
    "ann/yc2c/; root holds one of them and videos/.",
    bases=("", "ann", "video/ann"),
    hub=(HubSource(repo="lmms-lab/YouCook2", note="moved to lmms-eval/YouCook2"),),
)
