import random

import pytest

from weft.data import (
    Caption,
    Classify,
    FewShotDraw,
    InvalidArgumentError,
    MediaRef,
    StateMismatchError,
    UnknownNameError,
    base_to_new,
    draw_few_shot,
    few_shot,
    load_dataset,
    restrict_classes,
)
from weft.data.records.record_set import RecordSet


def make(counts, split="train"):
    """Records with labels in the given order of first appearance, interleaved."""
    order = [label for k in range(max(counts.values())) for label, count in counts.items() if k < count]
    media = MediaRef.from_bytes(b"")
    records = [
        Classify(id=f"{split}{k}", image=media, label=label, class_name=f"class {label}")
        for k, label in enumerate(order)
    ]
    return RecordSet("toy", split, "classify", records)


def published_rule(train_labels, val_labels, shots, seed):
    """The rule as the papers' code states it, on bare labels and the global generator's algorithm."""
    generator = random.Random(seed)
    chosen = []
    for labels, count in ((train_labels, shots), (val_labels, min(shots, 4))):
        groups = {}
        for index, label in enumerate(labels):
            groups.setdefault(label, []).append(index)
        chosen.append([i for items in groups.values() for i in generator.sample(items, count)])
    return chosen


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_train_and_validation_share_one_generator_in_order_of_first_appearance(shots, seed):
    train, val = make({2: 20, 0: 18, 1: 25}), make({1: 6, 2: 9, 0: 5}, "val")
    draw = draw_few_shot(train, val, shots=shots, seed=seed)
    expected = published_rule([r.label for r in train], [r.label for r in val], shots, seed)
    assert [list(draw.train), list(draw.validation)] == expected


def test_a_small_class_gives_all_it_has():
    drawn = few_shot(make({0: 10, 1: 2}), shots=4)
    assert [record.label for record in drawn].count(1) == 2


def test_a_draw_survives_json_and_applies_to_the_same_records(tmp_path):
    train, val = make({0: 6, 1: 6}), make({0: 5, 1: 5}, "val")
    draw = draw_few_shot(train, val, shots=2, seed=3)
    draw.save(tmp_path / "draw.json")
    loaded = FewShotDraw.load(tmp_path / "draw.json")
    assert loaded == draw
    first, second = loaded.apply(train, val)
    assert [len(first), len(second)] == [4, 4]
    assert loaded.apply(train)[1] is None
    with pytest.raises(StateMismatchError, match="`train` must be the records the draw was made from"):
        loaded.apply(val)
    with pytest.raises(StateMismatchError, match="`validation` must be the records"):
        loaded.apply(train, train)


@pytest.mark.parametrize("content", ["{", "{}", '{"train": [], "validation": [], "x": 1}'])
def test_a_file_that_is_no_draw_is_refused(tmp_path, content):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(StateMismatchError, match="must be a few-shot draw written by"):
        FewShotDraw.load(tmp_path / "d.json")


def test_at_least_one_shot_is_needed():
    with pytest.raises(InvalidArgumentError, match="`shots` must be at least 1, but is 0"):
        few_shot(make({0: 3}), shots=0)


def test_records_without_classes_are_refused():
    captions = RecordSet(
        "c", "train", "caption", [Caption(id="1", media=MediaRef.from_bytes(b""), media_id="1")]
    )
    with pytest.raises(InvalidArgumentError, match="must be of type 'classify', but 'c' holds 'caption'"):
        few_shot(captions)


@pytest.mark.parametrize(
    ("classes", "base", "new"), [(37, 19, 18), (101, 51, 50), (10, 5, 5), (397, 199, 198)]
)
def test_base_takes_the_larger_half_and_both_count_from_zero(classes, base, new):
    halves = base_to_new(make(dict.fromkeys(range(classes), 1)))
    assert [len(half.class_names) for half in halves] == [base, new]
    assert halves[1].class_names[0] == f"class {base}"
    assert {record.label for record in halves[1]} == set(range(new))


def test_classes_can_be_restricted_in_a_given_order():
    kept = restrict_classes(make({0: 2, 1: 2, 2: 2}), [2, 0])
    assert kept.class_names == ["class 2", "class 0"]
    with pytest.raises(UnknownNameError, match="label of toy: '7'"):
        restrict_classes(make({0: 1}), [7])
    with pytest.raises(InvalidArgumentError, match="`labels` must not repeat a class"):
        restrict_classes(make({0: 1}), [0, 0])


def test_a_label_with_two_names_is_refused():
    records = make({0: 2})
    twice = records.with_records(
        [records[0], Classify(id="x", image=records[0].image, label=0, class_name="other")]
    )
    with pytest.raises(InvalidArgumentError, match="must have one name"):
        twice.class_names  # noqa: B018 - the property itself is under test


def test_draws_from_real_photos_have_k_per_class(realdata):
    root = realdata / "alexeygrigorev+clothing-dataset-small" / "images_short80.zip"
    drawn = few_shot(load_dataset("image_folder", root, "train"), shots=16, seed=1)
    assert len(drawn) == 160
