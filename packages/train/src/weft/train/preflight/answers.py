"""A list of answers from which a task chooses, such as the most frequent ones of VQA v2."""

from __future__ import annotations

import json
from pathlib import Path

from weft.train.errors import RunError
from weft.train.recipe.variables import expanded


def read_answers(task: str, path: str) -> list[str]:
    """Read the answers that a task chooses from: a JSON file with a list of texts.

    Raises:
        RunError: If it is not there, or holds something else.
    """
    file = Path(expanded(path, f"tasks.{task}.choose_from"))
    try:
        answers = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"`tasks.{task}.choose_from` must be a JSON file with a list of answers, but {file} cannot be read: {error}"
        ) from None
    if not isinstance(answers, list) or not answers or not all(isinstance(word, str) for word in answers):
        raise RunError(
            f"`tasks.{task}.choose_from` must hold a list of texts, at least one, but {file} holds something else. "
            'Write for instance ["yes", "no"].'
        )
    return answers
