from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.metrics import MetricState, ScoreReport, top1_accuracy, vqa_accuracy

REFERENCES = {i: "cat" if i % 3 else "dog" for i in range(7)}


def test_missing_ids_are_refused_with_count_and_names() -> None:
    with pytest.raises(
        ScoreInputError, match="must hold all 7 ids of the references, but 6 are missing: 1, 2, 3, 4, 5, …"
    ):
        top1_accuracy({0: "dog"}, REFERENCES)


def test_unknown_ids_are_refused_with_count_and_names() -> None:
    with pytest.raises(ScoreInputError, match="must hold only ids of the references, but 1 are unknown: 99"):
        top1_accuracy(REFERENCES | {99: "cat"}, REFERENCES)


def test_ids_of_another_type_are_explained() -> None:
    with pytest.raises(
        ScoreInputError, match="share none: predictions hold str ids such as '0', references hold int"
    ):
        top1_accuracy({"0": "dog"}, REFERENCES)


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="`predictions` must hold at least one id, but is empty"):
        top1_accuracy({}, REFERENCES)


def test_a_list_is_refused() -> None:
    with pytest.raises(ScoreTypeError, match="`references` must map ids to values, but is a list"):
        top1_accuracy({0: "dog"}, ["dog"])  # type: ignore[arg-type]


def test_a_subset_is_scored_and_says_so() -> None:
    report = top1_accuracy({0: "dog", 99: "cat"}, REFERENCES, subset=True)
    assert (report.value, report.missing, report.extra, report.is_subset) == (100, 6, 1, True)
    assert "SUBSET: 6 references have no prediction" in str(report)


def _ranks(size: int) -> list[MetricState[str]]:
    # As a distributed sampler deals: round robin, the tail padded from the start.
    ids = list(REFERENCES)
    ids += ids[: -len(ids) % size]
    states = []
    for rank in range(size):
        state: MetricState[str] = MetricState(top1_accuracy)
        mine = ids[rank::size]
        state.update(mine, ["cat"] * len(mine))
        states.append(state)
    return states


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_padded_ranks_give_the_score_of_one_rank(size: int) -> None:
    first, *others = _ranks(size)
    for other in others:
        restored: MetricState[str] = MetricState(top1_accuracy)
        restored.load_state_dict(other.state_dict())
        first.merge(restored)
    report = first.compute(REFERENCES)
    assert report.scores == top1_accuracy(dict.fromkeys(REFERENCES, "cat"), REFERENCES).scores
    assert len(first) == 7


_RANK = """
import json, sys
import torch.distributed as distributed
from weft.eval.metrics import MetricState, top1_accuracy

rank, size, meeting = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
state = MetricState(top1_accuracy)
state.gather()
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
references = {i: "cat" if i % 3 else "dog" for i in range(7)}
ids = list(references) + [0]
state.update(ids[rank::size], ["cat"] * 4)
state.gather()
print(json.dumps(dict(state.compute(references).scores)))
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_gather_the_score_of_one(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", _RANK, str(rank), "2", str(tmp_path / "meeting")] for rank in range(2)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    expected = top1_accuracy(dict.fromkeys(REFERENCES, "cat"), REFERENCES).scores
    for process in started:
        printed, _ = process.communicate(timeout=300)
        assert json.loads(printed.splitlines()[-1]) == expected


def test_two_predictions_for_one_id_are_refused() -> None:
    state: MetricState[str] = MetricState(top1_accuracy)
    state.update([1], ["cat"])
    with pytest.raises(ScoreInputError, match="must have one prediction, but 1 have two different ones: 1"):
        state.update([1], ["dog"])


def test_arrays_are_compared_as_wholes() -> None:
    state: MetricState[np.ndarray] = MetricState(top1_accuracy)
    state.update([1], [np.ones(2)])
    state.update([1], [np.ones(2)])
    with pytest.raises(ScoreInputError, match="two different ones"):
        state.update([1], [np.ones(3)])
    assert len(state.predictions) == 1


def test_lengths_must_agree() -> None:
    with pytest.raises(ScoreInputError, match=r"one entry per id \(2\), but has 1"):
        MetricState(top1_accuracy).update([1, 2], ["cat"])


def test_a_report_is_plain_data() -> None:
    report = vqa_accuracy({1: "yes"}, {1: ["yes"] * 10}, groups={"kind": {1: "a"}})
    data = json.loads(json.dumps(report.to_dict(per_sample=True)))
    assert data["scores"] == {"accuracy": 100}
    assert data["groups"] == {"kind": {"a": {"score": 100, "n": 1}}}
    assert data["per_sample"] == {"1": 100}
    assert isinstance(report, ScoreReport)
    assert "accuracy: 100.0000 percent" in str(report)


def test_importing_the_metrics_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, weft.eval.metrics\n"
        "print([name for name in ('torch', 'mlflow', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
