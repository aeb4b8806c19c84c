"""Statements about two scenes, each shown once with a pair that makes it true and once with one that does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from weft.data.errors import InvalidArgumentError
from weft.data.scenes.examples import MAX_TRIES, SceneExample, ScenePool
from weft.data.scenes.scene import COLORS, NUMBERS, SHAPES, Scene, plural

Truth = Callable[[Scene, Scene], bool]
Statement = tuple[str, str, Truth, list[int] | None]


def _more(rng: random.Random, pool: ScenePool) -> Statement:
    word = rng.choice([*COLORS, *SHAPES])
    side, other = rng.choice([("left", "right"), ("right", "left")])
    text = f"there are more {plural(word)} in the {side} image than in the {other} image"

    def truth(left: Scene, right: Scene) -> bool:
        first, second = (left, right) if side == "left" else (right, left)
        return first.count(word) > second.count(word)

    return text, "more in one image", truth, pool.by_word.get(word)


def _total(rng: random.Random, pool: ScenePool) -> Statement:
    word = rng.choice([*COLORS, *SHAPES])
    number = rng.randint(1, 4)
    text = f"there are exactly {NUMBERS[number]} {plural(word)} in total"
    return text, "exact total", lambda a, b: a.count(word) + b.count(word) == number, pool.by_word.get(word)


def _side_count(rng: random.Random, pool: ScenePool) -> Statement:
    word = rng.choice([*COLORS, *SHAPES])
    number = rng.randint(1, 3)
    side = rng.randrange(2)
    text = f"the {('left', 'right')[side]} image contains exactly {NUMBERS[number]} {plural(word)}"
    return text, "exact count", lambda a, b: (a, b)[side].count(word) == number, pool.by_word.get(word)


def _both(rng: random.Random, pool: ScenePool) -> Statement:
    kinds = [(c, s) for c in COLORS for s in SHAPES if f"{c} {s}" in pool.by_word]
    color, shape = rng.choice(kinds)
    text = f"both images contain a {color} {shape}"

    def truth(left: Scene, right: Scene) -> bool:
        return bool(left.with_kind(color, shape)) and bool(right.with_kind(color, shape))

    return text, "both contain", truth, pool.by_word[f"{color} {shape}"]


def _sides(rng: random.Random, pool: ScenePool) -> Statement:
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    text = f"the left image contains a {color} object and the right image contains a {shape}"

    def truth(left: Scene, right: Scene) -> bool:
        return left.count(color) > 0 and right.count(shape) > 0

    return text, "left and right contain", truth, [*pool.by_word[color], *pool.by_word[shape]]


STATEMENTS = (_more, _total, _side_count, _both, _sides)


def draw_statements(pool: ScenePool, size: int, seed: int | str) -> Iterator[SceneExample]:
    """Draw statements about pairs; every statement is true once and false once.

    So the words alone decide nothing: any function of the text scores 50 %. Scenes that hold the words of the
    statement are preferred, or most false pairs would be false for being empty. The `group` of an example is the number
    of its statement.
    """
    rng = random.Random(f"pairs/{pool.name}/{seed}")
    for number in range(0, size, 2):
        make = STATEMENTS[number // 2 % len(STATEMENTS)]
        text, template, pairs = _statement(make, rng, pool)
        group = f"{pool.name}-{number // 2}"
        for label, pair in zip(("true", "false"), pairs, strict=True):
            name = f"{group}-{label}"
            yield SceneExample(name, pair, text=text, target=label, template=template, group=group)


def _statement(
    make: Callable[[random.Random, ScenePool], Statement], rng: random.Random, pool: ScenePool
) -> tuple[str, str, list[tuple[int, int]]]:
    for _ in range(MAX_TRIES):
        text, template, truth, likely = make(rng, pool)
        found = [_pair(rng, pool, truth, likely or [], wanted) for wanted in (True, False)]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) == 2:
            return text, template, pairs
    raise InvalidArgumentError(
        f"No pair of scenes of the pool {pool.name!r} ({len(pool.scenes)} scenes) decides a statement of "
        f"{make.__name__.strip('_')!r}. Draw a larger pool."
    )


def _pair(
    rng: random.Random, pool: ScenePool, truth: Truth, likely: list[int], wanted: bool
) -> tuple[int, int] | None:
    everything = range(len(pool.scenes))
    for _ in range(60):
        # At least one scene speaks to the statement; the other does so half of the time.
        one = rng.choice(likely or everything)
        pair = [one, rng.choice(likely if likely and rng.random() < 0.6 else everything)]
        rng.shuffle(pair)
        left, right = pair
        if left != right and truth(pool.scenes[left], pool.scenes[right]) == wanted:
            return left, right
    return None
