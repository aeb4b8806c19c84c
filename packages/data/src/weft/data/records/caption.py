"""Images and videos with captions."""

from dataclasses import dataclass
from typing import ClassVar

from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, register_record_type


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class Caption(Record):
    """An image or video with its reference captions.

    Args:
        media: The image or the video.
        media_id: Identity of the media across records.
        captions: Reference captions; empty if hidden.
        language: BCP 47 tag.
        subtitles: Spoken text in the span, or "".
    """

    record_type: ClassVar[str] = "caption"
    media: MediaRef
    media_id: str
    captions: tuple[str, ...] = ()
    language: str = "en"
    subtitles: str = ""

    def references(self) -> tuple[str, ...]:
        """The captions."""
        return self.captions

    def summary(self) -> str:
        """The captions."""
        return " | ".join(self.captions) or "?"
