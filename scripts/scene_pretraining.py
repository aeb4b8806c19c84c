"""Texts for pretraining on scenes, in a language of their own.

Attribute words (colours, shapes, sizes, numbers) mean the same downstream, and so do the verdicts yes, no, true and
false of the rich texts. Everything else is said in other words: the downstream questions say "just left of" and "how
many", these texts say "west of" and "tally".
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from weft.data.scenes.scene import COLORS, NUMBERS, SHAPES, SIZES, Scene, SceneObject

DIRECTIONS = {"west": "left", "east": "right", "north": "above", "south": "below"}
ATTRIBUTES = {"tint": "color", "form": "shape", "scale": "size"}
VERDICTS = {"claim": ("right", "wrong"), "does": ("yes", "no"), "this": ("true", "false")}
KNOWN = frozenset(
    {
        *COLORS,
        *SHAPES,
        *SIZES,
        *NUMBERS,
        *DIRECTIONS,
        *ATTRIBUTES,
        *VERDICTS,
        "item",
        "tally",
        "list",
        "repeat",
    }
    | {"reason", "first", "second", "joint", "each", "holds", "exceeds", "matches", "seen", "of", "is", "and"}
)
_WORDS = (*COLORS, *SHAPES, *SIZES)
Text = tuple[str, str]


def _full(item: SceneObject) -> str:
    return f"{item.size} {item.color} {item.shape}"


def _judged(text: str, seen: str, truth: bool, rng: random.Random, reasons: float, *, rich: bool) -> Text:
    """Ask for a verdict, in a share of the texts after what was seen; the first word says which verdicts."""
    head, verdicts = rng.choice(list(VERDICTS.items())) if rich else ("claim", VERDICTS["claim"])
    verdict = verdicts[not truth]
    if rng.random() < reasons:
        return f"reason {text}" if not rich else f"reason {head} {text}", f"{seen} {verdict}"
    return f"{head} {text}", verdict


def item(scene: Scene, rng: random.Random) -> Text:
    """Name missing attributes: "item red star scale" -> "small"."""
    target = rng.choice(scene.objects)
    names = list(ATTRIBUTES)
    rng.shuffle(names)
    given = sorted(names[: rng.randint(1, 2)])
    words = [getattr(target, ATTRIBUTES[n]) for n in given]
    same = [o for o in scene.objects if all(w in (o.color, o.shape, o.size) for w in words)]
    asked = [n for n in names if n not in given]
    if len(same) > 1:
        return f"item {' '.join(words)}", " ; ".join(_full(o) for o in same)
    return f"item {' '.join(words)} {' '.join(asked)}", " ".join(
        getattr(target, ATTRIBUTES[n]) for n in asked
    )


def neighbour(scene: Scene, rng: random.Random) -> Text:
    """Walk one or two steps from an object: "north of west of red star" -> "small blue circle"."""
    anchors = scene.unique() or list(scene.objects)
    anchor = rng.choice(anchors)
    steps = [rng.choice(list(DIRECTIONS)) for _ in range(rng.choice((1, 1, 2)))]
    here: SceneObject | None = anchor
    for step in steps:
        here = scene.nearest(here, DIRECTIONS[step]) if here is not None else None
    path = " ".join(f"{s} of" for s in reversed(steps))
    asked = rng.choice(["", *ATTRIBUTES])
    if here is None:
        answer = "nothing"
    else:
        answer = getattr(here, ATTRIBUTES[asked]) if asked else _full(here)
    return f"{asked} {path} {anchor.color} {anchor.shape}".strip(), answer


def tally(scene: Scene, rng: random.Random) -> Text:
    """Count objects by one to three words: "tally red ; star" -> "two one"."""
    present = [w for o in scene.objects for w in (o.color, o.shape)]
    words = [rng.choice(present if rng.random() < 0.75 else _WORDS) for _ in range(rng.randint(1, 3))]
    return f"tally {' ; '.join(words)}", " ".join(NUMBERS[scene.count(w)] for w in words)


def _near(number: int, rng: random.Random, limit: int) -> int:
    """The number itself half of the time, else one beside it."""
    if rng.random() < 0.5:
        return number
    return rng.choice([n for n in (number - 1, number + 1) if 0 <= n <= limit])


def claim(scene: Scene, rng: random.Random, *, rich: bool = False) -> Text:
    """Judge a statement, in some texts after saying what was seen: "reason ..." -> "east wrong"."""
    form = rng.choice(("place", "tally", "seen", "match"))
    anchors = scene.unique()
    if form in ("place", "match") and len(anchors) < 2:
        form = "tally"
    if form == "tally":
        word = rng.choice([w for o in scene.objects for w in (o.color, o.shape)])
        true = scene.count(word)
        said = _near(true, rng, 5)
        text, seen, truth = f"tally {word} is {NUMBERS[said]}", NUMBERS[true], said == true
    elif form == "seen":
        one = rng.choice(scene.objects)
        color, shape = one.kind
        if rng.random() < 0.5:
            color, shape = rng.choice(
                (
                    (rng.choice(scene.objects).color, shape),
                    (color, rng.choice(scene.objects).shape),
                    (rng.choice(list(COLORS)), shape),
                    (color, rng.choice(SHAPES)),
                )
            )
        found = scene.with_kind(color, shape)
        text, seen, truth = f"{color} {shape} is seen", NUMBERS[len(found)], bool(found)
    else:
        one, two = rng.sample(anchors, 2)
        names = f"{one.color} {one.shape}", f"{two.color} {two.shape}"
        if form == "place":
            said_way = rng.choice(list(DIRECTIONS))
            axis = "column" if said_way in ("west", "east") else "row"
            before = getattr(one, axis) < getattr(two, axis)
            way = {True: ("west", "north"), False: ("east", "south")}[before][axis == "row"]
            text, seen, truth = f"{names[0]} is {said_way} of {names[1]}", way, way == said_way
        else:
            text, seen = f"scale {names[0]} matches {names[1]}", f"{one.size} {two.size}"
            truth = one.size == two.size
    return _judged(text, seen, truth, rng, 0.4, rich=rich)


def listing(scene: Scene, rng: random.Random) -> Text:
    """List every object along one direction."""
    if rng.random() < 0.7:
        return "list eastward", " ; ".join(_full(o) for o in scene.objects)
    return "list southward", " ; ".join(_full(o) for o in sorted(scene.objects, key=lambda o: o.row))


def repeat(rng: random.Random, words: list[str]) -> Text:
    """Say random words or letters again, so that every token is read and written at times."""
    if rng.random() < 0.7:
        chosen = rng.sample(words, rng.randint(1, 5))
    else:
        chosen = ["".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(1, 6)))]
    return f"repeat {' '.join(chosen)}", " ".join(chosen)


def pair_tally(first: Scene, second: Scene, rng: random.Random) -> Text:
    """Count in named images: "first tally red ; second tally red ; joint tally red"."""
    both = [w for s in (first, second) for o in s.objects for w in (o.color, o.shape)]
    word = rng.choice(both)
    counts = {"first": first.count(word), "second": second.count(word)}
    asked = rng.sample(list(counts), rng.randint(1, 2))
    numbers = [NUMBERS[counts[a]] for a in asked]
    return f"{' ; '.join(f'{a} tally {word}' for a in asked)}", " ".join(numbers)


def pair_item(first: Scene, second: Scene, rng: random.Random) -> Text:
    """One of the single-image texts about the named image."""
    name, scene = rng.choice((("first", first), ("second", second)))
    text, target = rng.choice((item, item, neighbour, tally, listing))(scene, rng)
    return f"{name} {text}", target


def pair_claim(first: Scene, second: Scene, rng: random.Random, *, rich: bool = False) -> Text:
    """Judge a statement about both images, in some texts after the counts."""
    everything = [o for s in (first, second) for o in s.objects]
    one = rng.choice(everything)
    word = rng.choice(one.kind)
    a, b = first.count(word), second.count(word)
    form = rng.choice(("exceeds", "joint", "each", "holds", "tally"))
    seen = f"{NUMBERS[a]} {NUMBERS[b]}"
    if form == "exceeds":
        names, truth = rng.choice(((("first", "second"), a > b), (("second", "first"), b > a)))
        text = f"{names[0]} tally {word} exceeds {names[1]}"
    elif form == "joint":
        number = max(0, _near(a + b, rng, 10))
        if number >= len(NUMBERS):
            return pair_tally(first, second, rng)
        text, truth = f"joint tally {word} is {NUMBERS[number]}", number == a + b
    elif form == "tally":
        name, count = rng.choice((("first", a), ("second", b)))
        number = _near(count, rng, 5)
        text, truth = f"{name} tally {word} is {NUMBERS[number]}", number == count
    elif form == "holds":
        other = rng.choice(rng.choice(everything).kind)
        text, truth = f"first holds {word} and second holds {other}", a > 0 and second.count(other) > 0
        seen = f"{NUMBERS[a]} {NUMBERS[second.count(other)]}"
    else:
        color, shape = one.kind
        if rng.random() < 0.5:
            color, shape = rng.choice(everything).color, rng.choice(everything).shape
        a, b = len(first.with_kind(color, shape)), len(second.with_kind(color, shape))
        text, truth = f"each holds {color} {shape}", a > 0 and b > 0
        seen = f"{NUMBERS[a]} {NUMBERS[b]}"
    return _judged(text, seen, truth, rng, 0.5, rich=rich)


def with_fillers(text: str, rng: random.Random, words: list[str]) -> str:
    """Put one to five random words into a text, so that the model learns to pass over what it does not know."""
    parts = text.split()
    for _ in range(rng.randint(1, 5)):
        parts.insert(rng.randint(0, len(parts)), rng.choice(words))
    return " ".join(parts)


SINGLE: tuple[tuple[Callable[[Scene, random.Random], Text], float], ...] = (
    (item, 0.24),
    (neighbour, 0.3),
    (tally, 0.14),
    (claim, 0.2),
    (listing, 0.12),
)
PAIR: tuple[tuple[Callable[[Scene, Scene, random.Random], Text], float], ...] = (
    (pair_tally, 0.25),
    (pair_item, 0.25),
    (pair_claim, 0.5),
)
