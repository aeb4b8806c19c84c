"""Questions about one scene: attributes, existence and counts (`vqa`), relations and two hops (`gqa`)."""

from __future__ import annotations

import random

from weft.data.scenes.examples import Proposal, Proposer, ScenePool, Template
from weft.data.scenes.scene import COLORS, NUMBERS, SHAPES, SIZES, Scene, SceneObject, plural

DIRECTIONS = ("left", "right", "above", "below")
_PHRASE = {"left": "just left of", "right": "just right of", "above": "just above", "below": "just below"}
_COUNTED = NUMBERS[:4]


def _attribute(name: str) -> Proposer:
    """Ask for one attribute of an object that the other words name without doubt."""

    def propose(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
        named = [n for n in ("color", "shape", "size") if n != name]
        rng.shuffle(named)
        keys = named[: rng.randint(1, 2)]
        if keys == ["size"]:
            keys = ["size", "shape"] if name == "color" else ["size", "color"]
        hits = [o for o in scene.objects if getattr(o, name) == answer]
        rng.shuffle(hits)
        for item in hits:
            words = [getattr(item, k) for k in ("size", "color", "shape") if k in keys]
            if sum(all(w in (o.color, o.shape, o.size) for w in words) for o in scene.objects) != 1:
                continue
            noun = " ".join(words) if "shape" in keys else " ".join([*words, "object"])
            return f"what {name} is the {noun}?", f"what {name} is the {'+'.join(sorted(keys))}?"
        return None

    return propose


def _exists(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
    if answer == "yes":
        color, shape = rng.choice([o.kind for o in scene.objects])
    else:
        # Hard negatives: colour and shape are both in sight, but never on one object.
        color = rng.choice([o.color for o in scene.objects])
        shape = rng.choice([o.shape for o in scene.objects])
        if scene.with_kind(color, shape):
            return None
    if not pool.may_name(color, shape):
        return None
    return f"is there a {color} {shape}?", "is there a kind?"


def _count(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
    words = list(COLORS) if rng.random() < 0.5 else list(SHAPES)
    word = rng.choice(words)
    if scene.count(word) != _COUNTED.index(answer):
        return None
    return f"how many {plural(word)} are there?", "how many are there?"


def _named(item: SceneObject) -> str:
    return f"the {item.color} {item.shape}"


def _relation(name: str, hops: int) -> Proposer:
    """Ask for an attribute of the object one or two steps away from a named one."""

    def propose(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
        anchors = scene.unique()
        rng.shuffle(anchors)
        for anchor in anchors:
            steps = [rng.choice(DIRECTIONS) for _ in range(hops)]
            item: SceneObject | None = anchor
            for step in steps:
                item = scene.nearest(item, step) if item is not None else None
            if item is None or item == anchor or getattr(item, name) != answer:
                continue
            path = _named(anchor)
            for step in steps:
                path = f"the object {_PHRASE[step]} {path}"
            return f"what {name} is {path}?", f"what {name} is at {hops} hops?"
        return None

    return propose


def _verify(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
    if len(anchors := scene.unique()) < 2:
        return None
    one, two = rng.sample(anchors, 2)
    direction = rng.choice(DIRECTIONS)
    axis = "column" if direction in ("left", "right") else "row"
    before = getattr(one, axis) < getattr(two, axis)
    if (before == (direction in ("left", "above"))) != (answer == "yes"):
        return None
    word = f"{direction} of" if axis == "column" else direction
    return f"is {_named(one)} {word} {_named(two)}?", "is one there of two?"


def _compare(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
    if len(anchors := scene.unique()) < 2:
        return None
    one, two = rng.sample(anchors, 2)
    if (one.size == two.size) != (answer == "yes"):
        return None
    return f"are {_named(one)} and {_named(two)} the same size?", "are they the same size?"


VQA_TEMPLATES = (
    Template("color", tuple(COLORS), _attribute("color")),
    Template("shape", SHAPES, _attribute("shape")),
    Template("size", SIZES, _attribute("size")),
    Template("exists", ("yes", "no"), _exists),
    Template("count", _COUNTED, _count),
)
GQA_TEMPLATES = (
    Template("relation color", tuple(COLORS), _relation("color", 1)),
    Template("relation shape", SHAPES, _relation("shape", 1)),
    Template("two hops color", tuple(COLORS), _relation("color", 2)),
    Template("two hops shape", SHAPES, _relation("shape", 2)),
    Template("verify", ("yes", "no"), _verify),
    Template("compare", ("yes", "no"), _compare),
)
