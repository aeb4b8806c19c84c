"""SIGTERM asks a run to stop: all processes finish the same step, a checkpoint is written, and the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.train.engine.checkpoints import latest_checkpoint
from weft.train.errors import StoppedError
from weft.train.output.folders import RUN_MARKER
from weft.train.output.result import RESULT, is_unscored
from weft.train.processes import Processes


class Stop(TrainerCallback):
    """Ends training after the step in which a process of the run was asked to stop, with a checkpoint.

    Schedulers say SIGTERM before they kill: at the end of a job's time, and when others need its place.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.asked = self.agreed = False
        self.step = 0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to SIGTERM while training runs inside; only the main thread of a process can.

        Raises:
            StoppedError: If that is how training ended.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self.agreed:
            raise StoppedError(
                f"The run was asked to stop (SIGTERM) and did so after step {self.step}, with a checkpoint. --resume "
                "resumes it there; --auto-resume does so too, and may be in the command from the first start on."
            )
        if self.asked:
            # Too late for a step: the last one is done, and saved if the recipe says so.
            signal.raise_signal(signal.SIGTERM)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Agree on whether this step is the last; here, because a GPU is waited for here anyway."""
        self.agreed = self.asked
        if self.processes.size > 1:
            asked = torch.tensor(float(self.asked), device=self.processes.device)
            self.agreed = bool(self.processes.sum(asked))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop."""
        if self.agreed:
            control.should_save = control.should_training_stop = True
            self.step = state.global_step

    def _note(self, *_: Any) -> None:
        self.asked = True


def how_to_start(folder: Path) -> tuple[bool, bool]:
    """What `--auto-resume` does with the folder of a run.

    Returns:
        Whether to resume, which takes a complete checkpoint or a trained run without scores, and whether to start
        again, as after an end before the first checkpoint. Neither leaves a folder that is no interrupted run to the
        usual refusal.
    """
    if is_unscored(folder) or latest_checkpoint(folder / "checkpoints") is not None:
        return True, False
    return False, (folder / RUN_MARKER).is_file() and not (folder / RESULT).exists()
