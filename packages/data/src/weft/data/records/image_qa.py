"""Questions about one image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from weft.data.media.reference import MediaRef
from weft.data.records.record import EMPTY, Record, register_record_type


@register_record_type
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQA(Record):
    """A question about one image.

    Args:
        image: The image.
        image_id: Identity of the image across records.
        question: The question as written.
        answers: Every annotator's answer (ten in VQA v2), or the one gold answer; empty if hidden.
        question_type: Official type for breakdowns, or "".
        answer_type: Official type for breakdowns, or "".
        soft_targets: Answer to score in 0..1; empty if hidden or not defined.
    """

    record_type: ClassVar[str] = "image_qa"
    image: MediaRef
    image_id: str
    question: str
    answers: tuple[str, ...] = ()
    question_type: str = ""
    answer_type: str = ""
    soft_targets: Mapping[str, float] = field(default_factory=lambda: EMPTY)

    def references(self) -> tuple[str, ...]:
        """Every annotator's answer."""
        return self.answers

    def groups(self) -> dict[str, str]:
        """Those of every record, by the official type of question where there is one."""
        official = {"question_type": self.question_type} if self.question_type else {}
        return official | Record.groups(self) | official

    def summary(self) -> str:
        """The question and its distinct answers."""
        return f"{self.question} -> {', '.join(dict.fromkeys(self.answers)) or '?'}"
