"""Films: moving scenes with a text for each, and every one backwards with its own text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from weft.data.errors import InvalidArgumentError
from weft.data.scenes.examples import SceneExample, ScenePool
from weft.data.scenes.motion import STILL, MovingScene, backwards

FORWARDS, BACKWARDS = "forwards", "backwards"


def film_text(scene: MovingScene) -> str:
    """All objects and how they move, such as "a big blue cross that stays and a small red star that moves left"."""
    items = sorted(
        f"a {item.size} {item.color} {item.shape} that {'stays' if move == STILL else f'moves {move}'}"
        for item, move in zip(scene.objects, scene.moves, strict=True)
    )
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def draw_films(pool: ScenePool, size: int, seed: int | str, *, distinct: bool) -> Iterator[SceneExample]:
    """Draw moving scenes, each once forwards and once backwards.

    Whoever takes the frames of a video for a bag cannot tell the two apart: they show the same frames. Where `distinct`
    is set, no two of the `size` examples have the same text, as a test of retrieval needs it.

    Raises:
        InvalidArgumentError: If too few scenes of the pool move, or differ in their texts.
    """
    rng = random.Random(f"films/{pool.name}/{seed}")
    seen: set[str] = set()
    drawn = 0
    for index in rng.sample(range(len(pool.scenes)), len(pool.scenes)):
        scene = pool.scenes[index]
        assert isinstance(scene, MovingScene), "drawn by `sample_moving_scene`"
        texts = {FORWARDS: film_text(scene), BACKWARDS: film_text(backwards(scene))}
        if len(set(texts.values())) < len(texts) or (distinct and seen & set(texts.values())):
            continue
        seen |= set(texts.values())
        for way, text in texts.items():
            if drawn == size:
                return
            drawn += 1
            name = f"{pool.name}-{index}-{way}"
            yield SceneExample(name, (index,), text="", target=text, template=way, group=str(index))
    if drawn < size:
        raise InvalidArgumentError(
            f"`size` must be at most the films of the pool {pool.name!r} of {len(pool.scenes)} scenes ({drawn}), "
            f"but is {size}. Draw a larger pool{', or more objects' if distinct else ''}."
        )
