"""Instructional videos of How2: How2QA's four-way questions and How2R's moments to find."""

import random
from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import Speech, Subtitles, multiple_choice, span_of, video_files
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.records.video_mc import VideoMC

NUM_OPTIONS = 4
_VIDEOS = ("videos", "how2_videos")


def read_questions(
    source: Source, split: str, *, option_seed: int = 0, subtitles: Speech = "span"
) -> Iterator[VideoMC]:
    """Yield one `VideoMC` per question.

    The official CSV has no header and holds the right option last in every row, so options are shuffled by a
    generator seeded with `option_seed`, split and row. The VALUE lines have their own order.

    Options:
        option_seed: Seed of the order of options, CSV only.
        subtitles: Spoken text to join, where its file is there: that of the "span", of the whole "clip", or False.
    """
    table, lines = f"how2QA_{split}_release.csv", f"how2qa_{split}_release.jsonl"
    file = source.find(table, f"how2QA/{table}", lines, f"how2qa/{lines}")
    speech = Subtitles(source, "how2_subtitles.jsonl", scope=subtitles)
    videos = video_files(source, *_VIDEOS)

    def make_csv(row: Row) -> VideoMC:
        if len(row.value) != 7:
            columns = "video, span, three wrong options, question, right"
            row.fail(f"must have 7 columns ({columns}), but has {len(row.value)}")
        name, (start, end) = row.text(0), span_of(row, 1)
        options = [row.text(k) for k in (2, 3, 4, 6)]
        order = list(range(NUM_OPTIONS))
        random.Random(f"{option_seed}/{split}/{row.number}").shuffle(order)
        return VideoMC(
            id=f"{split}-{row.number}",
            video=videos.ref(name, start, end),
            media_id=name,
            question=row.text(5),
            options=tuple(options[k] for k in order),
            answer=order.index(NUM_OPTIONS - 1),
            subtitles=speech.between(name, start, end),
        )

    def make_line(row: Row) -> VideoMC:
        return multiple_choice(row, videos, speech, NUM_OPTIONS)

    if ".csv" in file.path:
        yield from source.build(source.csv_rows(file, header=False), make_csv)
    else:
        yield from source.build(source.json_lines(file), make_line)


def read_moments(source: Source, split: str) -> Iterator[Retrieval]:
    """Yield one `Retrieval` per description.

    The official CSV has no header: video, span of the clip, span of the moment, description. The media is the
    moment; `extra["clip"]` keeps the clip around it.
    """
    file = source.find(f"how2R_{split}_release.csv", f"how2R/how2R_{split}_release.csv")
    videos = video_files(source, *_VIDEOS)

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


SPECS = (
    DatasetSpec(
        name="how2qa",
        record_type="video_mc",
        splits=("train", "val", "test_public"),
        read=read_questions,
        summary="Four-way questions about instructional videos.",
        licence="MIT",
        citation="Li et al.: HERO, EMNLP 2020.",
        how_to_get="CSV files from https://github.com/ych133/How2R-and-How2QA, or the VALUE files ann/how2qa/; root "
        "holds how2QA_SPLIT.csv (or the clone) and videos/.",
        bases=("", "ann", "video/ann", "how2QA"),
        expected={"train": 35405, "val": 2852, "test_public": 2937},
    ),
    DatasetSpec(
        name="how2r",
        record_type="retrieval",
        splits=("train", "val", "test_public"),
        read=read_moments,
        summary="Descriptions of moments in instructional videos.",
        licence="MIT",
        citation="Li et al.: HERO, EMNLP 2020.",
        how_to_get="Clone https://github.com/ych133/How2R-and-How2QA; root is the clone or its folder how2R/.",
        bases=("", "how2R"),
    ),
)
