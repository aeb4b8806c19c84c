"""Films: moving scenes with a text for each, and every one backwards with a text of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator

from weft.data.errors import InvalidArgumentError
from weft.data.scenes.examples import SceneExample, ScenePool
from weft.data.scenes.motion import STILL, MovingScene, backwards

FORWARDS, BACKWARDS = "forwards", "backwards"


def film_text(scene: MovingScene) -> str:
    """All objects and how they move, by colour, such as "a blue cross that stays and a red star that moves left"."""
    items = sorted(
        f"a {item.color} {item.shape} that {'stays' if move == STILL else f'moves {move}'}"
        for item, move in zip(scene.objects, scene.moves, strict=True)
    )
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def draw_films(pool: ScenePool, size: int, seed: int | str) -> Iterator[SceneExample]:
    """Draw moving scenes, each once forwards and once backwards; no two examples have the same text.

    Whoever takes the frames of a video for a bag cannot tell the two apart: they show the same frames.

    Args:
        pool: Moving scenes.
        size: Number of examples, two for each scene.
        seed: Seed.

    Raises:
        InvalidArgumentError: If too few scenes of the pool move and differ in their texts.
    """
    rng = random.Random(f"films/{pool.name}/{seed}")
    seen: set[str] = set()
    for index in rng.sample(range(len(pool.scenes)), len(pool.scenes)):
        scene = pool.scenes[index]
        assert isinstance(scene, MovingScene), "drawn by `sample_moving_scene`"
        texts = {FORWARDS: film_text(scene), BACKWARDS: film_text(backwards(scene))}
        if seen & set(texts.values()) or len(set(texts.values())) < len(texts):
            continue
        for way, text in texts.items():
            if len(seen) == size:
                return
            seen.add(text)
            yield SceneExample(
                id=f"{pool.name}-{index}-{way}",
                scenes=(index,),
                text="",
                target=text,
                template=way,
                group=str(index),
            )
    if len(seen) < size:
        raise InvalidArgumentError(
            f"`size` must be at most the texts that the pool {pool.name!r} of {len(pool.scenes)} scenes tells apart "
            f"({len(seen)}), but is {size}. Draw a larger pool, or more objects."
        )
