"""A run as the model `weft` of lmms-eval, found by it through an entry point.

`python -m lmms_eval --model weft --model_args run=FOLDER,task=NAME --tasks ...` talks to a chat model; with
`--force_simple` any model is asked questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.data import ImageQA
from weft.eval.serving.lmms_harness import ChatHarnessModel, HarnessModel
from weft.train.errors import RunError, near
from weft.train.output.result import check_finished
from weft.train.recipe.loading import load_recipe
from weft.train.runs.served import load_predictor, load_talker


class RunModel(HarnessModel):
    """A finished run that answers by one of its tasks.

    Args:
        run: Folder of the run.
        task: One of its tasks.
        batch_size: Requests per pass.
        record_type: What the task's texts are, such as "image_qa".
        device: Accepted because the harness passes it; the model is on the GPU where there is one.
        max_batch_size: As `device`.

    Raises:
        RunError: The folder is no finished run, or has no such task.
    """

    def __init__(
        self,
        run: str,
        task: str,
        batch_size: int | str = 1,
        record_type: str = ImageQA.record_type,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__(load_predictor(_checked(run, task), {task: record_type}), task, batch_size)


class RunChatModel(ChatHarnessModel):
    """A finished run that is talked to: messages with pictures and videos, by the template of its backbone.

    Arguments are as for `RunModel`; the model is routed to `task`, whose `system`, lengths and beams hold.

    Raises:
        RunError: The folder is no finished run, has no such task, or its backbone holds no conversations.
    """

    def __init__(
        self,
        run: str,
        task: str,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__(load_talker(_checked(run, task), task), batch_size)


def _checked(run: str, task: str) -> Path:
    folder = Path(run)
    check_finished(folder, "run")
    tasks = load_recipe(folder / "recipe.yaml").tasks
    if task not in tasks:
        raise RunError(f"`task` must be one of the run's, but is {task!r}. {near(task, tasks)}")
    return folder


def manifest() -> Any:
    """What lmms-eval's registry reads from the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        "weft",
        simple_class_path="weft.train.runs.harness.RunModel",
        chat_class_path="weft.train.runs.harness.RunChatModel",
    )
