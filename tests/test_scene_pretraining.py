"""The texts that the miniature backbone is pretrained on say nothing of the questions it is adapted to."""

import random
from collections import Counter

from scripts import scene_pretraining as pretraining

from weft.data.scenes.examples import ScenePool, draw_questions
from weft.data.scenes.pairs import draw_statements
from weft.data.scenes.questions import GQA_TEMPLATES, VQA_TEMPLATES
from weft.data.scenes.scene import COLORS, NUMBERS, SHAPES

TEST = ScenePool.draw("test", 400, 0, allow_held_out=True)


def test_pretraining_and_downstream_texts_share_only_attributes_and_verdicts() -> None:
    rng = random.Random(0)
    verdicts = {word for pair in pretraining.VERDICTS.values() for word in pair}
    shared = {
        *COLORS,
        *SHAPES,
        "small",
        "big",
        *NUMBERS,
        "of",
        "is",
        ";",
        "and",
        "first",
        "second",
        "right",
    }
    before: set[str] = set()
    for make, _ in pretraining.SINGLE:
        for _ in range(200):
            before |= set(" ".join(make(rng.choice(TEST.scenes), rng)).split())
    for make_pair, _ in pretraining.PAIR:
        for _ in range(200):
            before |= set(" ".join(make_pair(*rng.sample(TEST.scenes, 2), rng)).split())
    after: set[str] = set()
    for templates in (VQA_TEMPLATES, GQA_TEMPLATES):
        for example in draw_questions(templates, TEST, 500, 0):
            after |= set(example.text.rstrip("?").split()) | {example.target}
    for example in draw_statements(TEST, 200, 0):
        after |= set(example.text.split()) | {example.target}
    for make_claim, number in ((pretraining.claim, 1), (pretraining.pair_claim, 2)):
        for _ in range(300):
            before |= set(" ".join(make_claim(*rng.sample(TEST.scenes, number), rng, rich=True)).split())
    assert verdicts <= before
    assert before & after <= shared | verdicts


def test_fillers_leave_the_order_of_the_words_alone() -> None:
    text = pretraining.with_fillers("tally red ; star", random.Random(0), ["what", "the"])
    assert [word for word in text.split() if word not in ("what", "the")] == ["tally", "red", ";", "star"]
    assert len(text.split()) > 4


def test_pretraining_verdicts_are_balanced() -> None:
    rng = random.Random(0)
    verdicts = Counter(pretraining.claim(rng.choice(TEST.scenes), rng)[1].split()[-1] for _ in range(3_000))
    assert 0.4 < verdicts["right"] / 3_000 < 0.6


def test_repeating_is_saying_again() -> None:
    text, target = pretraining.repeat(random.Random(0), ["red", "star"])
    assert text == f"repeat {target}"
