"""Captions that list a scene's objects from left to right."""

from __future__ import annotations

import random
from collections.abc import Iterator

from weft.data.scenes.examples import SceneExample, ScenePool
from weft.data.scenes.scene import Scene


def caption(scene: Scene) -> str:
    """All objects from left to right, such as "a small red star, a big blue circle and a big gray cross"."""
    items = [f"a {o.size} {o.color} {o.shape}" for o in scene.objects]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def draw_captions(pool: ScenePool, size: int, seed: int | str) -> Iterator[SceneExample]:
    """Draw scenes without repetition (until the pool is spent) and caption them."""
    rng = random.Random(f"captions/{pool.name}/{seed}")
    order = rng.sample(range(len(pool.scenes)), len(pool.scenes))
    for number in range(size):
        index = order[number % len(order)]
        text, target = "describe the image from left to right", caption(pool.scenes[index])
        name = f"{pool.name}-{number}"
        yield SceneExample(name, (index,), text=text, target=target, template="caption", group=str(index))
