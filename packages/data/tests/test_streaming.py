import collections
import json
import random

import pytest

from weft.data import Caption, MediaRef
from weft.data.errors import InvalidArgumentError, StateMismatchError
from weft.data.records.record_set import RecordSet
from weft.data.shards.convert import convert
from weft.data.shards.parquet import ShardedRecords
from weft.data.shards.streaming import ShardStream

ROWS = 103
MEDIA = MediaRef.from_bytes(b"x")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    records = [Caption(id=str(k), media=MEDIA, media_id=str(k)) for k in range(ROWS)]
    folder = tmp_path_factory.mktemp("shards") / "out"
    return convert(RecordSet("s", "train", "caption", records), folder, rows_per_shard=30, group_rows=7)


def take(stream, count):
    rows = []
    for record in stream:
        rows.append(int(record.id))
        if len(rows) == count:
            break
    return rows


def epoch(stream):
    return [int(record.id) for record in stream]


def test_an_epoch_has_every_row_once_in_a_new_order(shards):
    stream = ShardStream(shards, window_groups=3)
    first, second = epoch(stream), epoch(stream)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second
    assert first != list(range(ROWS))
    assert epoch(ShardStream(shards, shuffle=False)) == list(range(ROWS))


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_share_the_rows_evenly(shards, world):
    parts = [
        epoch(ShardStream(shards, window_groups=3, rank=rank, world_size=world)) for rank in range(world)
    ]
    assert sorted(row for part in parts for row in part) == list(range(ROWS))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_resuming_anywhere_continues_the_same_sequence(shards):
    reference = [row for _ in range(2) for row in epoch(stream)] if (stream := ShardStream(shards)) else []
    generator = random.Random(0)
    for _ in range(50):
        stop = generator.randrange(1, ROWS)
        before = ShardStream(shards)
        taken = take(before, stop)
        after = ShardStream(shards)
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        assert len(after) == ROWS - stop
        assert taken + epoch(after) == reference[:ROWS]
        assert take(after, 5) == reference[ROWS : ROWS + 5]


@pytest.mark.parametrize("worlds", [(4, 2), (2, 4), (1, 3, 2), (3, 3, 1)])
def test_the_number_of_ranks_may_change_and_nothing_is_lost_or_doubled(shards, worlds):
    seen = collections.Counter()
    state = None
    for number, world in enumerate(worlds):
        streams = [ShardStream(shards, window_groups=3, rank=rank, world_size=world) for rank in range(world)]
        for stream in streams:
            if state is not None:
                stream.load_state_dict(state)
            last = number == len(worlds) - 1
            seen.update(epoch(stream) if last else take(stream, 9))
        if number < len(worlds) - 1:
            state = json.loads(json.dumps(streams[0].state_dict()))
            assert len({json.dumps(stream.state_dict()) for stream in streams}) == 1
    assert sorted(seen.elements()) == list(range(ROWS))


def test_a_reader_that_ran_ahead_states_what_was_used(shards):
    stream = ShardStream(shards)
    rows = take(stream, 20)
    resumed = ShardStream(shards)
    resumed.load_state_dict(stream.state_dict(consumed=12))
    assert take(resumed, 8) == rows[12:]


def test_state_of_another_order_is_refused(shards):
    state = ShardStream(shards).state_dict()
    with pytest.raises(StateMismatchError, match="differs in seed, window_groups"):
        ShardStream(shards, seed=1, window_groups=2).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 1}, r"`rank` must lie in 0\.\.0"),
        ({"window_groups": 0}, "`window_groups` must be at least 1"),
    ],
)
def test_impossible_readers_are_refused(shards, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        ShardStream(shards, **options)


def test_a_rank_opens_only_its_own_shards(shards, monkeypatch):
    opened = []
    original = ShardedRecords.read_group
    monkeypatch.setattr(
        ShardedRecords, "read_group", lambda self, s, g: opened.append((s, g)) or original(self, s, g)
    )
    epoch(ShardStream(shards, window_groups=1, rank=0, world_size=4))
    assert len(opened) <= len(shards.groups()) // 4 + 2
