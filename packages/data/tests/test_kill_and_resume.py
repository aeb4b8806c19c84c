"""Processes killed in mid-epoch and resumed by another number of them: the sequence is that of one, undisturbed."""

import json
import multiprocessing
import os
import random
import signal

import pytest

torch = pytest.importorskip("torch")

from weft.data import TaskMixture  # noqa: E402 - torch is needed first
from weft.data.sampling.loader import MixtureLoader  # noqa: E402

SOURCES = {
    "vqa": [f"v{k}" for k in range(61)],
    "gqa": [f"g{k}" for k in range(43)],
    "nlvr": ["n0", "n1", "n2"],
}
SIZES = {task: len(rows) for task, rows in SOURCES.items()}
BATCH = 6
KILLS = 50
WORLDS = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2)]
FORK = multiprocessing.get_context("fork")


def batches_of(rank, world, workers, state=None):
    mixture = TaskMixture(SIZES, batch_size=BATCH, last="fill", seed=5, rank=rank, world_size=world)
    loader = MixtureLoader(SOURCES, mixture, num_workers=workers)
    if state is not None:
        loader.load_state_dict(state)
    for batch in loader:
        yield [record for _, record in batch], loader.state_dict()


def train(rank, world, workers, state, kill_at, path):
    """Note every batch and the state after it, as a training that saves each step; die where told to."""
    with open(path, "w") as notes:
        for number, (rows, after) in enumerate(batches_of(rank, world, workers, state), 1):
            notes.write(json.dumps([rows, after]) + "\n")
            notes.flush()
            if number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def run(folder, world, workers, state=None, kill_at=None):
    """Run all ranks in processes of their own; return the global batches and the last state of each rank."""
    paths = [folder / f"{rank}-of-{world}" for rank in range(world)]
    started = [
        FORK.Process(target=train, args=(rank, world, workers, state, kill_at, path))
        for rank, path in enumerate(paths)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert {process.exitcode for process in started} == {0 if kill_at is None else -signal.SIGKILL}
    notes = [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]
    merged = []
    for parts in zip(*notes, strict=True):
        rows = [None] * sum(len(part) for part, _ in parts)
        for rank, (part, _) in enumerate(parts):
            rows[rank::world] = part
        merged.append(rows)
    return merged, [own[-1][1] for own in notes]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process")  # Python 3.12 warns of threads beside a fork
@pytest.mark.parametrize("workers", [0, 2])
def test_fifty_kills_with_changing_numbers_of_processes_leave_the_sequence_alone(tmp_path, workers):
    reference = [rows for rows, _ in batches_of(0, 1, 0)]
    generator = random.Random(workers)
    for number in range(KILLS):
        before, after = WORLDS[number % len(WORLDS)]
        stop = generator.randrange(1, len(reference))
        seen, states = run(tmp_path, before, workers, kill_at=stop)
        assert len(seen) == stop
        assert all(state == states[0] for state in states)
        rest, _ = run(tmp_path, after, workers, state=states[generator.randrange(before)])
        assert seen + rest == reference
