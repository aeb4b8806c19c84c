"""What a finished run can be asked: questions, statements and pictures, as records of the types it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from weft.data import Caption, ImageQA, MediaRef, PairBool, Record


def _question(name: str, text: str, images: tuple[MediaRef, ...]) -> Record:
    return ImageQA(id=name, image=images[0], image_id=name, question=text)


def _statement(name: str, text: str, images: tuple[MediaRef, ...]) -> Record:
    return PairBool(id=name, images=images, group_id=name, sentence=text)


def _picture(name: str, text: str, images: tuple[MediaRef, ...]) -> Record:
    return Caption(id=name, media=images[0], media_id=name)


RECORDS: Mapping[str, Callable[[str, str, tuple[MediaRef, ...]], Record]] = {
    ImageQA.record_type: _question,
    PairBool.record_type: _statement,
    Caption.record_type: _picture,
}
"""Type of a record to what makes one of a name, a text and its images."""
