import json
import random
import sys

import pytest

from weft.data import StateMismatchError, TaskMixture
from weft.data.errors import MissingDependencyError

torch = pytest.importorskip("torch")

from weft.data.sampling.loader import MixtureLoader, one_thread_per_worker  # noqa: E402 - torch is needed first

SOURCES = {
    "vqa": [f"v{k}" for k in range(48)],
    "gqa": [f"g{k}" for k in range(31)],
    "nlvr": ["n0", "n1", "n2"],
}
SIZES = {task: len(rows) for task, rows in SOURCES.items()}


def loader(workers=0, **options):
    mixture = TaskMixture(SIZES, seed=1, **{"batch_size": 4, **options})
    return MixtureLoader(SOURCES, mixture, num_workers=workers)


def flat(batches):
    return [tuple(batch) for batch in batches]


def take(batches, count):
    found = []
    for batch in batches:
        found.append(tuple(batch))
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("unit", ["homogeneous", "mixed"])
def test_stopped_and_resumed_at_fifty_steps_without_workers(unit):
    whole = loader(unit=unit)
    reference = flat(whole) + flat(whole)
    length = len(whole)
    generator = random.Random(0)
    for _ in range(50):
        stop = generator.randrange(1, length)
        before = loader(unit=unit)
        taken = take(before, stop)
        after = loader(unit=unit)
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        assert taken + flat(after) == reference[:length]
        assert take(after, 2) == reference[length : length + 2]


@pytest.mark.parametrize("stop", [1, 7, 20])
def test_stopped_and_resumed_with_two_workers_that_run_ahead(stop):
    reference = flat(loader())
    before = loader(2)
    taken = take(before, stop)
    state = json.loads(json.dumps(before.state_dict()))
    assert state["step"] == stop
    after = loader(0 if stop > 1 else 2)
    after.load_state_dict(state)
    assert taken + flat(after) == reference


def test_the_end_of_an_epoch_is_the_start_of_the_next():
    first = loader()
    flat(first)
    state = first.state_dict()
    assert (state["epoch"], state["step"]) == (1, 0)
    second = loader()
    second.load_state_dict(state)
    assert flat(second) == flat(first)
    assert len(first) == 21


def test_state_of_another_mixture_is_refused():
    with pytest.raises(StateMismatchError, match="must come from a mixture"):
        loader().load_state_dict(loader(batch_size=2).state_dict())


def test_batches_are_collated_where_they_are_read():
    mixture = TaskMixture(SIZES, batch_size=4)
    batch = next(iter(MixtureLoader(SOURCES, mixture, lambda rows: len(rows))))
    assert batch in (3, 4)


def test_workers_use_one_thread():
    threads = torch.get_num_threads()
    try:
        one_thread_per_worker(0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_without_torch_the_install_command_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.data", None)
    with pytest.raises(MissingDependencyError, match=r"pip install torch"):
        loader()
