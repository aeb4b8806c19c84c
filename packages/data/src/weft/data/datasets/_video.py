"""What video data sets share: where videos are, spans in seconds, subtitles."""

from collections.abc import Sequence
from typing import Any, Literal

from weft.data.errors import InvalidArgumentError
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source
from weft.data.records.video_mc import VideoMC

Speech = Literal["span", "clip"] | bool
"""Which spoken text a record holds: that of its span (also `True`), that of the whole clip, or none."""

ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".3gp")


def video_files(source: Source, *folders: str, archives: Sequence[str] = ()) -> MediaFiles:
    """Return what finds videos by their names without endings, in the first folder or archive that has the first."""
    return MediaFiles(source, folders, archives, kind="video", what="videos", endings=ENDINGS)


def span_of(row: Row, key: str | int) -> tuple[float | None, float | None]:
    """Return the span written as `10.2-14.1`, `[10.2:14.1]` or two numbers; "NaN-NaN" gives no span."""
    value = row.field(key)
    if isinstance(value, list):
        return row.span(key)
    text = row.text(key).strip().strip("[]")
    first, _, second = text.partition(":") if ":" in text else text.partition("-")
    if first.lower() == second.lower() == "nan":
        return None, None
    try:
        return float(first), float(second)
    except ValueError:
        row.fail(f"`{key}` must be a span in seconds such as '10.2-14.1', but is {value!r}")


def multiple_choice(
    row: Row, videos: MediaFiles, speech: "Subtitles", num_options: int, **extra: Any
) -> VideoMC:
    """Return the question of a line as TVQA and VALUE write them: `q`, options `a0` and so on, `answer_idx`."""
    name, (start, end) = row.text("vid_name"), span_of(row, "ts")
    return VideoMC(
        id=row.identity("qid"),
        video=videos.ref(name, start, end),
        media_id=name,
        question=row.text("q"),
        options=tuple(row.text(f"a{k}") for k in range(num_options)),
        answer=row.integer("answer_idx") if row.has("answer_idx") else None,
        subtitles=speech.between(name, start, end),
        extra={**extra, "ts": row.field("ts")},
    )


class Subtitles:
    """Spoken text by video, from the first of some JSONL files of `{"vid_name", "sub": [{"text", "start", "end"}]}`.

    Without such a file, every text is empty.

    Raises:
        InvalidArgumentError: If `scope` is something else.
    """

    def __init__(self, source: Source, *paths: str, scope: Speech = "span") -> None:
        self._lines: dict[str, list[tuple[float, float, str]]] = {}
        if scope not in ("span", "clip", True, False):
            raise InvalidArgumentError(
                f"`subtitles` must be 'span', 'clip' or False, but is {scope!r}. Take 'clip' for what "
                "is said in the whole clip."
            )
        self._whole = scope == "clip"
        file = source.find_optional(*paths) if scope else None
        for row in source.json_lines(file) if file else ():
            lines = row.subs("sub")
            self._lines[row.text("vid_name")] = [
                (line.number_of("start"), line.number_of("end"), line.text("text").strip()) for line in lines
            ]

    def between(self, video: str, start: float | None, end: float | None) -> str:
        """Return the lines that touch the span, or all of the video's, joined by spaces."""
        return " ".join(
            text
            for first, last, text in self._lines.get(video, ())
            if self._whole or ((end is None or first <= end) and (start is None or last >= start))
        )
