"""Images and their classes."""

from dataclasses import dataclass
from typing import ClassVar

from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, register_record_type


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class Classify(Record):
    """An image and its class.

    Args:
        image: The image.
        label: Class index, from 0.
        class_name: The class in words.
        domain: Name of the image domain (for shifts such as ImageNet-Sketch), or "".
    """

    record_type: ClassVar[str] = "classify"
    image: MediaRef
    label: int
    class_name: str
    domain: str = ""

    def references(self) -> tuple[str, ...]:
        """The class in words."""
        return (self.class_name,)

    def summary(self) -> str:
        """Label and class."""
        return f"{self.label}: {self.class_name}"
