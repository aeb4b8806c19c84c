"""Statements that are true or false of images."""

from dataclasses import dataclass
from typing import ClassVar

from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, register_record_type


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class PairBool(Record):
    """A statement that is true or false of one or two images.

    Args:
        images: One image (NLVR) or left and right (NLVR2).
        group_id: Records of one group count together for consistency.
        sentence: The statement.
        label: Whether it is true; None if hidden.
    """

    record_type: ClassVar[str] = "pair_bool"
    images: tuple[MediaRef, ...]
    group_id: str
    sentence: str
    label: bool | None = None

    def references(self) -> tuple[str, ...]:
        """Whether it is true, in a word."""
        return () if self.label is None else (str(self.label).lower(),)

    def summary(self) -> str:
        """The statement, and whether it is true."""
        return f"{self.sentence} -> {'?' if self.label is None else self.label}"
