"""Pairs of a text and an image or a video that belong together."""

from dataclasses import dataclass
from typing import ClassVar

from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, register_record_type


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval(Record):
    """One positive pair of a text and a medium; several records may share either side.

    Args:
        media: The image or the video.
        media_id: Identity of the media across records.
        text: The text.
        text_id: Identity of the text across records.
        language: BCP 47 tag.
    """

    record_type: ClassVar[str] = "retrieval"
    media: MediaRef
    media_id: str
    text: str
    text_id: str
    language: str = "en"

    def references(self) -> tuple[str, ...]:
        """Which text is the right one."""
        return (self.text_id,)

    def summary(self) -> str:
        """The text."""
        return self.text
