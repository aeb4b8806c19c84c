"""A torch loader over several tasks that resumes exactly where training stopped, with workers too."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from weft.data.errors import needed
from weft.data.sampling.mixing import TaskMixture
from weft.data.sampling.task_records import TaskRecords

Collate = Callable[[list[tuple[str, Any]]], Any]


class MixtureLoader:
    """Batches of a mixture, decoded in worker processes, counted where they are used.

    Workers ask for batches ahead of time, so the sampler's own position is not where training is. This
    loader counts the batches it has handed out, and its state is that count.

    Args:
        sources: Task to its records.
        mixture: The sampler; its sizes must be those of `sources`.
        collate: Makes a batch from a list of (task, record); runs in the workers.
        num_workers: Worker processes; 0 works in this process.
        **options: Further arguments of `torch.utils.data.DataLoader`.

    Raises:
        MissingDependencyError: If torch is not installed.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Any]],
        mixture: TaskMixture,
        collate: Collate | None = None,
        *,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        torch_data = needed("torch.utils.data", "The loader", "torch", "torch")
        self.mixture = mixture
        self._consumed = mixture.step
        self._epoch = mixture.epoch
        self._loader = torch_data.DataLoader(
            TaskRecords(sources),
            batch_sampler=mixture,
            collate_fn=collate or list,
            num_workers=num_workers,
            worker_init_fn=one_thread_per_worker if num_workers else None,
            **options,
        )

    def __len__(self) -> int:
        return len(self.mixture)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches from the present step to the end of the epoch."""
        self.mixture.epoch, self.mixture.step = self._epoch, self._consumed
        for batch in self._loader:
            self._consumed += 1
            yield batch
        self._epoch, self._consumed = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that was handed out."""
        probe = {**self.mixture.state_dict(consumed=self._consumed)}
        probe["epoch"] = self._epoch + (1 if self._consumed == len(self.mixture) else 0)
        return probe

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` stood.

        Raises:
            StateMismatchError: If the state belongs to another mixture.
        """
        self.mixture.load_state_dict(state)
        self._epoch, self._consumed = self.mixture.epoch, self.mixture.step


def one_thread_per_worker(worker: int) -> None:
    """Limit torch to one thread: workers that spin on many threads starve each other."""
    import torch

    torch.set_num_threads(1)
