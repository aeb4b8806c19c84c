"""The losses of each task since the last log, and the alarm when one of them is NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from weft.train.engine.checkpoints import how_to_resume
from weft.train.errors import RunError
from weft.train.output.result import write_json
from weft.train.processes import Processes


def nan_file(rank: int) -> str:
    """Name of the file that lists the batch of a NaN loss, one for each process that finds one."""
    return f"nan-batch-{rank}.json" if rank else "nan-batch.json"


class TaskLosses:
    """Sums and counts by task, on the device of the losses; the batch of a NaN loss is written down in the folder."""

    def __init__(self, tasks: Sequence[str], processes: Processes, folder: Path) -> None:
        self.tasks, self.processes, self.folder = tuple(tasks), processes, folder
        self._sums: Tensor | None = None
        self._last: tuple[Tensor, list[str], list[str], int, int] | None = None

    def note(self, tasks: list[str], records: list[str], losses: Tensor, step: int, epoch: int = 0) -> None:
        """Add the losses of one batch, after a look at those of the batch before it.

        Args:
            tasks: Task of each row.
            records: Id of each row's record.
            losses: Shape `(batch,)`.
            step: Steps done before this one.
            epoch: Epoch in which the batch was drawn.

        Raises:
            RunError: See `check`.
        """
        self.check()
        values = losses.detach().double()
        index = torch.tensor([self.tasks.index(task) for task in tasks], device=values.device)
        if self._sums is None:
            self._sums = torch.zeros(2, len(self.tasks), dtype=torch.float64, device=values.device)
        self._sums[0].index_add_(0, index, values)
        self._sums[1].index_add_(0, index, torch.ones_like(values))
        self._last = (values, tasks, records, step, epoch)

    def check(self) -> None:
        """Refuse to continue after a NaN or infinite loss. It is asked a step late, so that no step waits for it.

        Raises:
            RunError: Naming step, tasks and records; the whole batch is listed in the run's folder.
        """
        if self._last is None:
            return
        values, tasks, records, step, epoch = self._last
        self._last = None
        finite = torch.isfinite(values).tolist()
        if all(finite):
            return
        rows = [
            {"task": task, "record": record, "loss": repr(value)}
            for task, record, value in zip(tasks, records, values.tolist(), strict=True)
        ]
        path = self.folder / nan_file(self.processes.rank)
        write_json(path, {"step": step, "epoch": epoch, "rows": rows})
        wrong = [
            f"{task}/{record}" for task, record, good in zip(tasks, records, finite, strict=True) if not good
        ]
        raise RunError(
            f"Every loss must be finite, but {len(wrong)} of {len(rows)} of step {step + 1} are NaN or infinite, such "
            f"as that of {wrong[0]}. The batch is listed in {path}, and nan_batch of weft.train.runs.replay makes it "
            "again. Lower training.learning_rate, set training.precision=fp32, or look at the record. "
            f"{how_to_resume(self.folder)}"
        )

    def drain(self) -> tuple[dict[str, float], int]:
        """Mean loss of every task that had rows since the last call, and the number of rows, over all processes."""
        if self._sums is None:
            return {}, 0
        sums, counts = self.processes.sum(self._sums).tolist()
        self._sums = None
        means = {
            task: total / count for task, total, count in zip(self.tasks, sums, counts, strict=True) if count
        }
        return means, round(sum(counts))
