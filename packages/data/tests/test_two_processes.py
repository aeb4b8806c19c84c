"""The loader of two ranks that meet over gloo: every row once, also when the data does not divide, and after a stop."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from weft.data import TaskMixture  # noqa: E402 - torch is needed first
from weft.data.sampling.loader import MixtureLoader  # noqa: E402

SIZES = {"vqa": 41, "gqa": 23, "nlvr": 8}
STOP = 5

_RANK = """
import json, sys
import torch.distributed as distributed
from weft.data import TaskMixture
from weft.data.sampling.loader import MixtureLoader

rank, meeting, sizes, stop = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
sources = {task: [f"{task}-{k}" for k in range(size)] for task, size in sizes.items()}

def loader():
    return MixtureLoader(sources, TaskMixture(sizes, batch_size=6, seed=3, rank=rank, world_size=2))

first, seen = loader(), []
for batch in first:
    seen.append([record for _, record in batch])
    if len(seen) == stop:
        break
states = [None, None]
distributed.all_gather_object(states, first.state_dict())
assert states[0] == states[1], states
again = loader()
again.load_state_dict(states[1 - rank])
seen += [[record for _, record in batch] for batch in again]
gathered = [None, None]
distributed.all_gather_object(gathered, seen)
print(json.dumps(gathered))
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_that_stop_and_resume_see_every_row_once_in_the_order_of_one(tmp_path):
    words = [str(tmp_path / "meeting"), json.dumps(SIZES), str(STOP)]
    started = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(rank), *words], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    left, right = json.loads(printed[0].splitlines()[-1])
    assert len(left) == len(right)
    rows = [row for side in (left, right) for batch in side for row in batch]
    assert sorted(rows) == sorted(f"{task}-{k}" for task, size in SIZES.items() for k in range(size))
    sources = {task: [f"{task}-{k}" for k in range(size)] for task, size in SIZES.items()}
    whole = MixtureLoader(sources, TaskMixture(SIZES, batch_size=6, seed=3))
    merged = [sorted(one + two) for one, two in zip(left, right, strict=True)]
    assert merged == [sorted(record for _, record in batch) for batch in whole]
