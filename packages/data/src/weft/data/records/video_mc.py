"""Multiple-choice questions about videos."""

from dataclasses import dataclass
from typing import ClassVar

from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, register_record_type


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMC(Record):
    """A multiple-choice question about a video.

    Args:
        video: The video; its span in seconds is in `video.start` and `video.end`.
        media_id: Identity of the video across records.
        question: The question.
        options: The answers to choose from.
        answer: Index of the right option; None if hidden.
        subtitles: Spoken text in the span, or "".
    """

    record_type: ClassVar[str] = "video_mc"
    video: MediaRef
    media_id: str
    question: str
    options: tuple[str, ...]
    answer: int | None = None
    subtitles: str = ""

    def references(self) -> tuple[str, ...]:
        """`a` and the number of the right option."""
        return () if self.answer is None else (f"a{self.answer}",)

    def summary(self) -> str:
        """The question and its options, the right one marked."""
        options = (f"{'*' if k == self.answer else ''}{text}" for k, text in enumerate(self.options))
        return f"{self.question} -> {' / '.join(options)}"
