"""Open questions about videos."""

from dataclasses import dataclass
from typing import ClassVar

from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, register_record_type


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class VideoQA(Record):
    """An open question about a video.

    Args:
        video: The video.
        media_id: Identity of the video across records.
        question: The question.
        answers: Gold answers; empty if hidden.
    """

    record_type: ClassVar[str] = "video_qa"
    video: MediaRef
    media_id: str
    question: str
    answers: tuple[str, ...] = ()

    def references(self) -> tuple[str, ...]:
        """The gold answers."""
        return self.answers

    def summary(self) -> str:
        """The question and its distinct answers."""
        return f"{self.question} -> {', '.join(dict.fromkeys(self.answers)) or '?'}"
