"""What training reads: a mixture's rows, looked up and collated where they are read, by workers or in place.

Nothing here holds on to the model, so that workers can be started in every way that Python knows.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, get_worker_info

from weft.data.errors import WeftDataError
from weft.data.sampling.loader import one_thread_per_worker
from weft.data.sampling.mixing import TaskMixture
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.readers import ReaderError

Row = tuple[str, int, int, int]
GRACE = 30
"""Seconds between SIGTERM and SIGKILL that torchrun and SLURM give unless told otherwise."""


class TaskRows(Dataset[Any]):
    """Records of several tasks, looked up by (task, row, epoch, rows of the whole batch)."""

    def __init__(self, records: Mapping[str, Sequence[Any]]) -> None:
        self.records = records

    def __getitem__(self, key: Row) -> tuple[str, Any, int, int]:
        task, row, epoch, rows = key
        return task, self.records[task][row], epoch, rows


class EpochRows:
    """A batch sampler that hands on a mixture's rows, with their epoch and the rows of all processes together."""

    def __init__(self, mixture: TaskMixture, batch_size: int) -> None:
        self.mixture = mixture
        self.batch_size = batch_size
        self.drop_last = False

    def __len__(self) -> int:
        return len(self.mixture)

    def __iter__(self) -> Iterator[list[Row]]:
        epoch, mixture = self.mixture.epoch, self.mixture
        for step in range(len(mixture)):
            whole = mixture.global_batch(step, epoch)
            yield [(task, row, epoch, len(whole)) for task, row in whole[mixture.rank :: mixture.world_size]]

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of this epoch from now on."""
        self.mixture.set_epoch(epoch)


@dataclass(frozen=True)
class Collate:
    """Makes the model's inputs of the rows of a batch."""

    batches: ReaderBatches

    def __call__(self, rows: Sequence[tuple[str, Any, int, int]]) -> dict[str, Any]:
        """Return the inputs, and beside them what belongs to the batch.

        That is `records`, the ids of its rows; `left_out`, the task of each row that it lacks; `rows` of the whole
        batch that was drawn, over all processes; and `epoch`.

        Raises:
            WeftDataError: If an image or another file cannot be read. A worker returns the error as `failed`.
            ReaderError: If a row cannot be learned, under the same condition.
        """
        _, _, epoch, whole = rows[0]
        try:
            batch = self.batches.training([(task, record) for task, record, _, _ in rows], epoch=epoch)
        except (WeftDataError, ReaderError) as error:
            if get_worker_info() is None:
                raise
            # Raised in the training's process: torch would wrap the message in the worker's traceback.
            return {"failed": error}
        ids = [record.id for _, record, _, _ in rows]
        kept = batch.pop("kept")
        records = [ids[place] for place in kept]
        left_out = [row[0] for place, row in enumerate(rows) if place not in kept]
        return batch | {"records": records, "left_out": left_out, "rows": whole, "epoch": epoch}


class TaskLoader(DataLoader[Any]):
    """A loader whose sampler already knows this process's share of each batch; without workers it reads in place."""

    def __init__(self, rows: TaskRows, sampler: EpochRows, collate: Collate, workers: int = 0) -> None:
        super().__init__(
            rows,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=start_worker if workers else None,
            persistent_workers=workers > 0,
        )

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of this epoch from now on."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def start_worker(worker: int) -> None:
    """Prepare a worker that decodes batches: one thread, and time to serve the step that SIGTERM falls into.

    Launchers signal whole process groups; a worker that died at once would take the run with it.
    """
    one_thread_per_worker(worker)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
