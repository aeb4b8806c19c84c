"""Scenes: a few coloured shapes on a grid, drawn from a seed and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

from weft.data.errors import InvalidArgumentError

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 35),
    "green": (40, 200, 60),
    "blue": (35, 60, 225),
    "yellow": (240, 220, 40),
    "teal": (20, 135, 135),
    "brown": (130, 70, 35),
    "gray": (135, 135, 135),
    "black": (15, 15, 15),
}
SHAPES = ("circle", "rectangle", "triangle", "star", "cross", "diamond")
SIZES = ("small", "big")
NUMBERS = ("zero", "one", "two", "three", "four", "five")
GRID_SIZE = 5

# Combinations that never appear in training scenes: one of every shape, so that each word is still learned.
HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("blue", "cross"),
        ("green", "triangle"),
        ("yellow", "circle"),
        ("brown", "diamond"),
        ("black", "rectangle"),
    }
)


@dataclass(frozen=True, order=True)
class SceneObject:
    """One shape. `column` and `row` are grid cells from the top left; offsets are pixels of an 80-pixel image."""

    column: int
    row: int
    color: str
    shape: str
    size: str
    offset: tuple[float, float] = (0.0, 0.0)
    aspect: float = 1.0

    @property
    def kind(self) -> tuple[str, str]:
        """Colour and shape, the pair that names an object in questions."""
        return (self.color, self.shape)


@dataclass(frozen=True)
class Scene:
    """Objects sorted from left to right; no two share a row or a column, so every relation is strict."""

    id: str
    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]

    def count(self, word: str) -> int:
        """Number of objects of this colour, shape or size."""
        return sum(word in (o.color, o.shape, o.size) for o in self.objects)

    def with_kind(self, color: str, shape: str) -> list[SceneObject]:
        """Every object of this colour and shape."""
        return [o for o in self.objects if o.kind == (color, shape)]

    def unique(self) -> list[SceneObject]:
        """Objects that colour and shape together name without doubt."""
        kinds = [o.kind for o in self.objects]
        return [o for o in self.objects if kinds.count(o.kind) == 1]

    def nearest(self, anchor: SceneObject, direction: str) -> SceneObject | None:
        """The next object in a direction (left, right, above, below), or None at the edge.

        "Next" counts columns for left and right, rows for above and below.
        """
        axis = "column" if direction in ("left", "right") else "row"
        sign = -1 if direction in ("left", "above") else 1
        ahead = [o for o in self.objects if sign * (getattr(o, axis) - getattr(anchor, axis)) > 0]
        return min(ahead, key=lambda o: abs(getattr(o, axis) - getattr(anchor, axis)), default=None)

    @property
    def is_novel(self) -> bool:
        """Whether a held-out combination of colour and shape appears."""
        return any(o.kind in HELD_OUT for o in self.objects)


def plural(word: str) -> str:
    """Objects of a colour, or shapes of a kind, as questions name them."""
    return f"{word} objects" if word in COLORS else f"{word} shapes"


def sample_scene(
    name: str,
    seed: int | str,
    *,
    min_objects: int = 2,
    max_objects: int = GRID_SIZE,
    allow_held_out: bool = True,
) -> Scene:
    """Draw a scene; equal arguments give an equal scene on every machine.

    Args:
        name: Id of the scene; part of the seed.
        seed: Seed of the collection.
        min_objects: Smallest number of objects, at least 1.
        max_objects: Largest number of objects, at most `GRID_SIZE`.
        allow_held_out: Whether combinations of `HELD_OUT` may appear.

    Raises:
        InvalidArgumentError: If the numbers of objects do not fit the grid.
    """
    if not 1 <= min_objects <= max_objects <= GRID_SIZE:
        raise InvalidArgumentError(
            f"`min_objects` and `max_objects` must satisfy 1 <= min <= max <= {GRID_SIZE}, "
            f"but are {min_objects} and {max_objects}."
        )
    rng = random.Random(f"{seed}/{name}")
    # A small palette makes equal colours and shapes meet in one scene, so that counts pass one.
    colors = rng.sample(tuple(COLORS), rng.randint(2, 4))
    shapes = rng.sample(SHAPES, rng.randint(2, 4))
    kinds = [k for k in product(colors, shapes) if allow_held_out or k not in HELD_OUT]
    number = rng.randint(min_objects, max_objects)
    columns = rng.sample(range(GRID_SIZE), number)
    rows = rng.sample(range(GRID_SIZE), number)
    objects = []
    for column, row in zip(columns, rows, strict=True):
        color, shape = rng.choice(kinds)
        size = rng.choice(SIZES)
        offset = (rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5))
        objects.append(SceneObject(column, row, color, shape, size, offset, aspect=rng.uniform(0.6, 1.4)))
    light = rng.randint(215, 245)
    background = tuple(min(255, light + rng.randint(-8, 10)) for _ in range(3))
    return Scene(id=name, objects=tuple(sorted(objects)), background=background)  # type: ignore[arg-type]
