import collections
import itertools
import json
import math
import random

import numpy as np
import pytest

from weft.data import InvalidArgumentError, StateMismatchError, TaskMixture, TaskRecords, UnknownNameError
from weft.data.sampling.permutation import permute
from weft.data.sampling.quotas import draws_per_epoch, largest_remainder, task_weights

SIZES = {"vqa": 48, "gqa": 31, "nlvr": 7, "caption": 1}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 100, 1023, 4097])
def test_a_permutation_visits_everything_once(size):
    assert sorted(permute(np.arange(size), size, ("k", size)).tolist()) == list(range(size))


def test_permutations_differ_by_key_and_scatter_neighbours():
    first, second = (permute(np.arange(5000), 5000, (seed,)) for seed in (0, 1))
    assert (first == second).mean() < 0.01
    assert abs(np.corrcoef(np.arange(5000), first)[0, 1]) < 0.05
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("size", [3, 7, 24])
def test_every_position_goes_everywhere_about_equally_often(size):
    draws = 4000
    table = np.zeros((size, size), dtype=int)
    for seed in range(draws):
        table[np.arange(size), permute(np.arange(size), size, (seed,))] += 1
    expected = draws / size
    assert np.abs(table - expected).max() < 6 * math.sqrt(expected)


def test_a_permutation_of_a_billion_needs_no_memory():
    values = permute(np.array([0, 999_999_999]), 1_000_000_000, (0,))
    assert len(set(values.tolist())) == 2


@pytest.mark.parametrize("position", [-1, 5])
def test_positions_outside_are_refused(position):
    with pytest.raises(InvalidArgumentError, match=r"`positions` must lie in 0..4"):
        permute(np.array([position]), 5, (0,))


@pytest.mark.parametrize("unit", ["homogeneous", "mixed"])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 64])
def test_a_proportional_epoch_has_every_row_once(unit, batch_size):
    mixture = TaskMixture(SIZES, batch_size=batch_size, unit=unit, seed=3)
    for _ in range(3):
        batches = list(mixture)
        assert len(batches) == len(mixture)
        rows = [row for batch in batches for row in batch]
        assert sorted(rows) == sorted((task, k) for task, size in SIZES.items() for k in range(size))
        if unit == "homogeneous":
            assert all(len({task for task, _ in batch}) == 1 for batch in batches)


def test_epochs_and_seeds_shuffle_differently():
    mixture = TaskMixture(SIZES, batch_size=4)
    first, second = list(mixture), list(mixture)
    assert first != second
    assert first == list(TaskMixture(SIZES, batch_size=4))
    assert first != list(TaskMixture(SIZES, batch_size=4, seed=1))


def test_unshuffled_rows_stay_in_order_within_each_task():
    mixture = TaskMixture({"a": 6, "b": 4}, batch_size=2, unit="homogeneous", shuffle=False)
    batches = [batch for batch in mixture if batch[0][0] == "a"]
    assert sorted(batches) == [[("a", 0), ("a", 1)], [("a", 2), ("a", 3)], [("a", 4), ("a", 5)]]


# Official training sizes of VQAv2, GQA, NLVR2 and COCO captions; the shares are worked out by hand to three
# decimals.
PAPER_SIZES = {"vqa": 443_757, "gqa": 943_000, "nlvr": 86_373, "caption": 566_747}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.218, 0.462, 0.042, 0.278)),
        ({"strategy": "temperature", "temperature": 2.0}, (0.248, 0.362, 0.110, 0.280)),
        ({"strategy": "temperature", "temperature": 4.0}, (0.254, 0.307, 0.169, 0.270)),
        ({"strategy": "temperature", "temperature": 1e9}, (0.25, 0.25, 0.25, 0.25)),
        ({"strategy": "round_robin"}, (0.25, 0.25, 0.25, 0.25)),
        ({"caps": 2**18}, (0.300, 0.300, 0.099, 0.300)),
        ({"strategy": "weights", "weights": {"vqa": 3, "nlvr": 1}}, (0.75, 0.0, 0.25, 0.0)),
    ],
    ids=["proportional", "t2", "t4", "uniform", "round_robin", "capped", "weights"],
)
def test_rates_follow_the_strategy(options, expected):
    shares = task_weights(PAPER_SIZES, **options)
    assert [round(shares[task], 3) for task in PAPER_SIZES] == pytest.approx(expected, abs=1.001e-3)


@pytest.mark.parametrize("unit", ["homogeneous", "mixed"])
def test_drawn_frequencies_match_the_rates_within_four_sigma(unit):
    sizes = {"a": 1000, "b": 250, "c": 40}
    mixture = TaskMixture(sizes, "temperature", 2.0, batch_size=50, unit=unit, steps_per_epoch=100)
    drawn = collections.Counter(task for _ in range(2) for batch in mixture for task, _ in batch)
    total = sum(drawn.values())
    for task, share in task_weights(sizes, "temperature", 2.0).items():
        assert abs(drawn[task] - share * total) <= 4 * math.sqrt(share * (1 - share) * total) + 50


def test_rows_of_a_stream_come_equally_often():
    mixture = TaskMixture(
        {"a": 10, "b": 3}, "weights", weights={"a": 1, "b": 1}, batch_size=4, steps_per_epoch=10
    )
    seen = collections.Counter(row for _ in range(6) for batch in mixture for row in batch)
    for task, size in mixture.sizes.items():
        counts = [seen[(task, row)] for row in range(size)]
        assert max(counts) - min(counts) <= 1


def test_round_robin_takes_turns():
    mixture = TaskMixture(SIZES, "round_robin", batch_size=4)
    assert len(mixture) % 4 == 0
    assert [mixture.global_batch(step)[0][0] for step in range(8)] == [*SIZES, *SIZES]
    mixed = TaskMixture({"a": 9, "b": 9}, "round_robin", batch_size=6, unit="mixed")
    assert [task for task, _ in mixed.batch(0)] == ["a", "b"] * 3


def test_round_robin_mixed_draws_each_row_equally_often():
    mixture = TaskMixture(
        {"a": 5, "b": 3, "c": 2}, "round_robin", batch_size=4, unit="mixed", steps_per_epoch=10
    )
    seen = collections.Counter(row for _ in range(3) for batch in mixture for row in batch)
    for task, size in mixture.sizes.items():
        counts = [seen[(task, row)] for row in range(size)]
        assert max(counts) - min(counts) <= 1


def test_each_task_has_its_own_batch_size():
    mixture = TaskMixture({"a": 8, "b": 6}, batch_size={"a": 4, "b": 2})
    assert {len(batch) for batch in mixture if batch[0][0] == "a"} == {4}
    assert mixture.steps_per_epoch == 5
    assert mixture.rows_per_epoch == {"a": 8, "b": 6}


@pytest.mark.parametrize(("last", "rows"), [("short", 10), ("drop", 8), ("fill", 12)])
@pytest.mark.parametrize("unit", ["homogeneous", "mixed"])
def test_the_last_batch_is_short_dropped_or_filled(last, rows, unit):
    mixture = TaskMixture({"a": 10}, batch_size=4, last=last, unit=unit)
    epochs = [[row for batch in mixture for row in batch] for _ in range(10)]
    assert {len(epoch) for epoch in epochs} == {rows}
    seen = collections.Counter(row for epoch in epochs for row in epoch)
    assert max(seen.values()) - min(seen[("a", k)] for k in range(10)) <= 1


CONFIGURATIONS = [
    {"batch_size": 4},
    {"batch_size": 4, "unit": "mixed"},
    {"batch_size": 8, "strategy": "temperature", "temperature": 3.0, "steps_per_epoch": 23},
    {"batch_size": {"vqa": 8, "gqa": 4, "nlvr": 4, "caption": 4}, "strategy": "round_robin"},
    {"batch_size": 4, "unit": "mixed", "strategy": "weights", "weights": {"vqa": 1, "caption": 2}},
    {"batch_size": 4, "caps": {"vqa": 10}},
]


def endless(mixture):
    while True:
        yield from mixture


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_resuming_at_any_of_fifty_steps_continues_the_same_sequence(options):
    reference = []
    whole = TaskMixture(SIZES, seed=5, **options)
    for _ in range(3):
        reference.extend(whole)
    stops = sorted(random.Random(0).choices(range(len(reference) - 8), k=50))
    running = TaskMixture(SIZES, seed=5, **options)
    stream, taken = endless(running), 0
    for stop in stops:
        for _ in range(stop - taken):
            next(stream)
        taken = stop
        resumed = TaskMixture(SIZES, seed=5, **options)
        resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
        assert list(itertools.islice(endless(resumed), 8)) == reference[stop : stop + 8]


def test_state_is_small_and_counts_what_was_consumed():
    mixture = TaskMixture(SIZES, batch_size=4)
    iterator = iter(mixture)
    for _ in range(9):
        next(iterator)
    state = mixture.state_dict(consumed=6)
    assert state["step"] == 6
    assert len(json.dumps(state)) < 300
    end = mixture.state_dict(consumed=len(mixture))
    assert (end["epoch"], end["step"]) == (1, 0)


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 1), (1, 4)])
def test_the_global_sequence_does_not_depend_on_the_world_size(before, after):
    options = {"batch_size": 8, "last": "fill", "seed": 2}
    reference = [sorted(batch) for batch in TaskMixture(SIZES, **options)]
    ranks = [TaskMixture(SIZES, rank=rank, world_size=before, **options) for rank in range(before)]
    joined = [sorted(row for rank in ranks for row in rank.batch(step)) for step in range(5)]
    states = set()
    for rank in ranks:
        iterator = iter(rank)
        for _ in range(5):
            next(iterator)
        states.add(json.dumps(rank.state_dict()))
    assert len(states) == 1
    resumed = [TaskMixture(SIZES, rank=rank, world_size=after, **options) for rank in range(after)]
    for rank in resumed:
        rank.load_state_dict(json.loads(next(iter(states))))
    for parts in zip(*resumed, strict=True):
        joined.append(sorted(row for part in parts for row in part))
    assert joined == reference


def test_state_of_another_mixture_is_refused():
    state = TaskMixture(SIZES, batch_size=4).state_dict()
    with pytest.raises(StateMismatchError, match="`state` must come from a mixture with the same sizes"):
        TaskMixture(SIZES, batch_size=8).load_state_dict(state)


def test_setting_the_present_epoch_keeps_the_step():
    mixture = TaskMixture(SIZES, batch_size=4)
    next(iter(mixture))
    mixture.set_epoch(0)
    assert mixture.step == 1
    mixture.set_epoch(2)
    assert (mixture.epoch, mixture.step) == (2, 0)
    assert mixture.batch(0) == TaskMixture(SIZES, batch_size=4).batch(0, epoch=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": {}}, "`sizes` must name at least one task"),
        ({"sizes": {"a": 0}}, "`sizes` must be at least 1 for every task, but 'a' has 0"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"weights": {"a": 1}}, "`weights` must be given for strategy 'weights' and only there"),
        ({"strategy": "weights"}, "`weights` must be given for strategy 'weights'"),
        ({"strategy": "weights", "weights": {"a": -1}}, "`weights` must be non-negative"),
        ({"caps": {"a": 0}}, "`caps` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"batch_size": {"a": 2}}, "`batch_size` must name every task, but 'b' is missing"),
        ({"batch_size": {"a": 2}, "unit": "mixed"}, "`batch_size` must be one number for mixed batches"),
        ({"rank": 2, "world_size": 2}, "`rank` must lie in 0..1"),
        ({"batch_size": 3, "world_size": 2}, "`batch_size` must be a multiple of world_size"),
        ({"batch_size": 4, "world_size": 4}, "`last` must be 'drop' or 'fill' here"),
        ({"steps_per_epoch": 1}, "`steps_per_epoch` must leave at least one place"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch` must be at least 1"),
        ({"batch_size": 32, "last": "drop"}, "`last` must not be 'drop' for task"),
    ],
)
def test_impossible_mixtures_are_refused(options, message):
    with pytest.raises(InvalidArgumentError) as caught:
        TaskMixture(**{"sizes": {"a": 10, "b": 7}, "batch_size": 2, **options})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "propotional"},
        {"unit": "homogenous"},
        {"last": "shrot"},
        {"caps": {"c": 1}},
        {"strategy": "weights", "weights": {"c": 1}},
        {"batch_size": {"a": 1, "b": 1, "c": 1}},
    ],
)
def test_unknown_words_are_refused(options):
    with pytest.raises(UnknownNameError, match="Known: "):
        TaskMixture(**{"sizes": {"a": 10, "b": 7}, "batch_size": 2, **options})


def test_a_step_outside_the_epoch_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"`step` must lie in 0..4"):
        TaskMixture({"a": 10}, batch_size=2).batch(5)


def test_whole_numbers_keep_the_total_and_every_active_task():
    shares = {"a": 0.97, "b": 0.02, "c": 0.01, "d": 0.0}
    for total in range(3, 40):
        split = largest_remainder(shares, total)
        assert sum(split.values()) == total
        assert split["d"] == 0
        assert min(split[task] for task in "abc") >= 1


def test_proportional_steps_of_a_given_length_keep_row_shares():
    draws, steps = draws_per_epoch(
        {"a": 100, "b": 100},
        {"a": 0.5, "b": 0.5},
        {"a": 10, "b": 5},
        strategy="proportional",
        mixed=False,
        steps=30,
    )
    assert (draws, steps) == ({"a": 100, "b": 100}, 30)


def test_records_of_tasks_answer_to_task_and_row():
    records = TaskRecords({"a": ["x", "y"], "b": ["z"]})
    assert len(records) == 3
    assert [
        records[key] for key in TaskMixture(records.sizes, batch_size=3, unit="mixed", shuffle=False).batch(0)
    ]
    with pytest.raises(UnknownNameError, match="Unknown task: 'c'"):
        records[("c", 0)]
