"""Films: every one is there forwards and backwards, and only the order of frames tells which."""

import numpy as np
import pytest

from weft.data import Retrieval, load_dataset
from weft.data.errors import InvalidArgumentError
from weft.data.media.video import read_frames
from weft.data.scenes.films import film_text
from weft.data.scenes.motion import STEPS, backwards, render_frames, sample_moving_scene

OPTIONS = {"task": "motion_retrieval", "num_scenes": 200, "num_frames": 4, "max_objects": 2}


def test_backwards_is_the_same_film_from_its_end():
    for scene in (sample_moving_scene(f"s{k}", 0) for k in range(40)):
        turned = backwards(scene)
        frames, others = render_frames(scene, 4), render_frames(turned, 4)[::-1]
        apart = [
            np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean()
            for a, b in zip(frames, others, strict=True)
        ]
        # Where objects lie over one another, the order of drawing may differ; offsets are rounded alike.
        assert max(apart) < 0.5
        assert backwards(turned) == scene
        assert turned.num_moving == scene.num_moving


def test_texts_differ_in_their_directions_alone():
    records = list(load_dataset("scenes", split="test", size=60, **OPTIONS))
    assert all(isinstance(record, Retrieval) for record in records)
    texts = [record.text for record in records]
    assert len(set(texts)) == len(records) == len({record.media_id for record in records})
    words = {*STEPS, "moves", "stays", "that", "a", "and"}
    for there, back in zip(records[::2], records[1::2], strict=True):
        assert there.text != back.text
        kinds = [sorted(set(record.text.replace(",", "").split()) - words) for record in (there, back)]
        assert kinds[0] == kinds[1]
        assert (there.extra["template"], back.extra["template"]) == ("forwards", "backwards")


def test_videos_of_a_pair_hold_the_same_frames_in_opposite_order():
    pytest.importorskip("av")
    records = list(load_dataset("scenes", split="validation", size=8, **OPTIONS))
    for there, back in zip(records[::2], records[1::2], strict=True):
        frames, others = (read_frames(record.media, 4).astype(int) for record in (there, back))
        assert np.abs(frames - others[::-1]).mean() < 0.5
        assert np.abs(frames - others).mean() > 1
        assert back.media.exists()
        assert back.media.path in set(back.media.store.names())


def test_a_text_names_every_object_and_how_it_moves():
    scene = next(
        scene
        for scene in (sample_moving_scene(f"s{k}", 0) for k in range(300))
        if len(scene.objects) == 3 and scene.num_moving == 2
    )
    text = film_text(scene)
    assert text.count("that moves") == 2
    assert text.count("that stays") == 1
    assert all(f"a {item.size} {item.color} {item.shape} that" in text for item in scene.objects)


def test_more_films_than_a_pool_tells_apart_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"films of the pool .* of 20 scenes \(\d+\), but is 60"):
        load_dataset("scenes", split="test", **{**OPTIONS, "num_scenes": 20}, size=60)


def test_an_object_that_is_alone_always_moves_when_asked_which_way():
    records = load_dataset(
        "scenes",
        split="test",
        task="motion",
        size=40,
        num_scenes=200,
        templates=["direction"],
        min_objects=1,
        max_objects=1,
    )
    assert {record.answers[0] for record in records} == set(STEPS)


def test_shuffled_frames_are_the_same_frames_in_another_order():
    pytest.importorskip("av")
    plain, shuffled = (
        list(load_dataset("scenes", split="test", size=12, shuffled=way, **OPTIONS)) for way in (False, True)
    )
    assert [record.text for record in plain] == [record.text for record in shuffled]
    assert {record.media.uri for record in plain}.isdisjoint(record.media.uri for record in shuffled)
    moved = 0
    for one, other in zip(plain, shuffled, strict=True):
        frames, others = (read_frames(record.media, 4).astype(int) for record in (one, other))
        nearest = [int(np.abs(frames - frame).sum(axis=(1, 2, 3)).argmin()) for frame in others]
        assert sorted(nearest) == [0, 1, 2, 3]
        moved += nearest != [0, 1, 2, 3]
    assert moved > len(plain) / 2
