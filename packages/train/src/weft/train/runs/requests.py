"""What a finished run can be asked: questions, statements and pictures, as records of the types it was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from weft.data import Caption, Conversation, ImageQA, MediaRef, PairBool, Record
from weft.data.records.conversation import TurnMapping
from weft.data.records.rows import Row
from weft.data.records.turns import IMAGE
from weft.train.errors import RunError


def _conversation(name: str, text: str, images: tuple[MediaRef, ...]) -> Record:
    """A conversation of a list of messages in JSON, or of one text that shows all images first."""
    messages: Any = [{"role": "user", "content": f"{IMAGE * len(images)}{text}"}]
    if text.lstrip().startswith("["):
        try:
            messages = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(
                f"`question` of row {name} must be a text, or a list of messages in JSON, but {error}. Write for "
                'instance [{"role": "user", "content": "<image> What is it?"}].'
            ) from None
    row = Row({"messages": messages, "images": list(images)}, "question", int(name) + 1)
    return TurnMapping({}).record(row, name)


RECORDS: Mapping[str, Callable[[str, str, tuple[MediaRef, ...]], Record]] = {
    ImageQA.record_type: lambda name, text, images: ImageQA(
        id=name, image=images[0], image_id=name, question=text
    ),
    PairBool.record_type: lambda name, text, images: PairBool(
        id=name, images=images, group_id=name, sentence=text
    ),
    Caption.record_type: lambda name, text, images: Caption(id=name, media=images[0], media_id=name),
    Conversation.record_type: _conversation,
}
"""Type of a record to what makes one of a name, a text and its images."""
