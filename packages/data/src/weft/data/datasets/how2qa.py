"""How2QA: four-way questions about instructional videos, as the official CSV or the VALUE lines."""

import random
from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.datasets._video import Speech, Subtitles, VideoFiles, multiple_choice, span_of
from weft.data.records.rows import Row
from weft.data.records.source import Source
from weft.data.records.video_mc import VideoMC

NUM_OPTIONS = 4
_CSV = {"train": "train_release", "val": "val_release", "test_public": "test_public_release"}


def read(
    source: Source, split: str, *, option_seed: int = 0, subtitles: Speech = "span"
) -> Iterator[VideoMC]:
    """Yield one `VideoMC` per question.

    The official CSV has no header and holds the right option last in every row, so options are shuffled by a
    generator seeded with `option_seed`, split and row. The VALUE lines have their own order.

    Args:
        source: Where the files are.
        split: Split name.
        option_seed: Seed of the order of options, CSV only.
        subtitles: Spoken text to join, where the subtitle file is there: that of the "span", of the whole "clip", or
            False for none.
    """
    file = source.find(
        f"how2QA_{_CSV[split]}.csv",
        f"how2QA/how2QA_{_CSV[split]}.csv",
        f"how2qa_{_CSV[split]}.jsonl",
        f"how2qa/how2qa_{_CSV[split]}.jsonl",
    )
    speech = Subtitles(source, "how2_subtitles.jsonl", scope=subtitles)
    videos = VideoFiles(source, ["videos", "how2_videos"])

    def make_csv(row: Row) -> VideoMC:
        if len(row.value) != 7:
            row.fail(
                f"must have 7 columns (video, span, three wrong options, question, right), but has {len(row.value)}"
            )
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

    if ".csv" in file.path:
        yield from source.build(source.csv_rows(file, header=False), make_csv)
    else:
        yield from source.build(
            source.json_lines(file), lambda row: multiple_choice(row, videos, speech, NUM_OPTIONS)
        )


SPEC = DatasetSpec(
    name="how2qa",
    record_type="video_mc",
    splits=("train", "val", "test_public"),
    read=read,
    summary="Four-way questions about instructional videos.",
    licence="MIT",
    citation="Li et al.: HERO, EMNLP 2020.",
    how_to_get="CSV files from https://github.com/ych133/How2R-and-How2QA, or the VALUE files ann/how2qa/; root holds "
    "how2QA_SPLIT.csv (or the clone) and videos/.",
    bases=("", "ann", "video/ann", "how2QA"),
    expected={"train": 35405, "val": 2852, "test_public": 2937},
)
