"""What video data sets share: where videos are, spans in seconds, subtitles."""

from collections.abc import Sequence
from typing import Any, Literal

from weft.data.errors import InvalidArgumentError
from weft.data.media.reference import MediaRef
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, Source
from weft.data.records.video_mc import VideoMC

Speech = Literal["span", "clip"] | bool
"""Which spoken text a record holds: that of its span (also `True`), that of the whole clip, or none."""

ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".3gp")


class VideoFiles:
    """Finds the video of a name, whatever its ending; the folder is looked for once.

    Args:
        source: Root of the data set.
        folders: Folders that may hold the videos.
        archives: Archives that may hold them.
    """

    def __init__(self, source: Source, folders: Sequence[str], archives: Sequence[str] = ()) -> None:
        self._source, self._folders, self._archives = source, folders, archives
        self._found: tuple[MediaFolder, str] | None = None

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        """Return the video `name` (without ending), from `start` to `end` seconds."""
        if self._found is None:
            self._found = self._find(name)
        folder, ending = self._found
        return folder.ref(name + ending, "video", start=start, end=end)

    def _find(self, name: str) -> tuple[MediaFolder, str]:
        required, self._source.require_media = self._source.require_media, False
        try:
            for ending in ENDINGS:
                folder = self._source.media(self._folders, archives=self._archives, probe=name + ending)
                if folder.ref(name + ending).exists():
                    return folder, ending
        finally:
            self._source.require_media = required
        probe = name + ENDINGS[0]
        return self._source.media(
            self._folders, archives=self._archives, probe=probe, what="videos"
        ), ENDINGS[0]


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
    row: Row, videos: "VideoFiles", speech: "Subtitles", num_options: int, **extra: Any
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
    """Spoken text by video, from a JSONL file of `{"vid_name", "sub": [{"text", "start", "end"}]}`.

    Args:
        source: Root of the data set.
        paths: Candidates for the file; without one, every text is empty.
        scope: Which lines are wanted.

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
            lines = [row.sub(value) for value in row.items("sub")]
            self._lines[row.text("vid_name")] = [
                (line.number_of("start"), line.number_of("end"), line.text("text").strip()) for line in lines
            ]

    def between(self, video: str, start: float | None, end: float | None) -> str:
        """Return the lines that touch the span, or all of the video's, joined by spaces."""
        lines = self._lines.get(video, ())
        return " ".join(
            text
            for first, last, text in lines
            if self._whole or ((end is None or first <= end) and (start is None or last >= start))
        )
