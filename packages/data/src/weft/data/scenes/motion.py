"""Scenes in which some objects move by one cell: short videos, and questions that no single frame answers."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from weft.data.errors import InvalidArgumentError
from weft.data.scenes.examples import Proposal, Proposer, ScenePool, Template
from weft.data.scenes.render import IMAGE_SIZE, render
from weft.data.scenes.scene import COLORS, GRID_SIZE, NUMBERS, SHAPES, Scene, SceneObject, sample_scene

STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Direction to columns and rows."""
STILL = "nowhere"
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", STILL: STILL}
FRAMES_PER_SECOND = 8


@dataclass(frozen=True)
class MovingScene(Scene):
    """A scene whose objects each move by one cell or stay; `moves` has a direction or `nowhere` for each of them."""

    moves: tuple[str, ...]

    def going(self, direction: str) -> list[SceneObject]:
        """The objects that move in a direction, or nowhere."""
        return [o for o, move in zip(self.objects, self.moves, strict=True) if move == direction]

    @property
    def num_moving(self) -> int:
        """Number of objects that move."""
        return sum(move != STILL for move in self.moves)


def sample_moving_scene(name: str, seed: int | str, *, max_moving: int = 3, **objects: Any) -> MovingScene:
    """Draw a moving scene; equal arguments give an equal scene on every machine.

    No object leaves the grid, and none ends where another begins or ends.

    Args:
        name: Id of the scene; part of the seed.
        seed: Seed of the collection.
        max_moving: Largest number of objects that move, at least 1.
        **objects: `min_objects`, `max_objects` and `allow_held_out`, as for `weft.data.scenes.scene.sample_scene`.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """
    if max_moving < 1:
        raise InvalidArgumentError(f"`max_moving` must be at least 1, but is {max_moving}.")
    scene = sample_scene(name, seed, **objects)
    rng = random.Random(f"{seed}/{name}/moves")
    wanted = rng.randint(0, min(max_moving, len(scene.objects)))
    taken = {(item.column, item.row) for item in scene.objects}
    moves = [STILL] * len(scene.objects)
    for place in rng.sample(range(len(moves)), len(moves)):
        item = scene.objects[place]
        ends = {way: (item.column + x, item.row + y) for way, (x, y) in STEPS.items()}
        grid = range(GRID_SIZE)
        free = [way for way, (x, y) in ends.items() if x in grid and y in grid and (x, y) not in taken]
        if wanted and free:
            moves[place] = rng.choice(free)
            taken.add(ends[moves[place]])
            wanted -= 1
    return MovingScene(scene.id, scene.objects, scene.background, tuple(moves))


def backwards(scene: MovingScene) -> MovingScene:
    """The scene from its end to its start: what moved left moves right, and begins where it ended.

    Both show the same frames in opposite order, so nothing but their order tells them apart.
    """
    turned = sorted(
        (replace(item, column=item.column + x, row=item.row + y), OPPOSITE[move])
        for item, move in zip(scene.objects, scene.moves, strict=True)
        for x, y in [STEPS.get(move, (0, 0))]
    )
    objects, moves = zip(*turned, strict=True)
    return MovingScene(scene.id, objects, scene.background, moves)


def render_frames(scene: MovingScene, num_frames: int) -> list[Image.Image]:
    """Draw a scene from its start to its end: RGB images of `IMAGE_SIZE` × `IMAGE_SIZE` pixels.

    Raises:
        InvalidArgumentError: If there are fewer than two frames.
    """
    if num_frames < 2:
        raise InvalidArgumentError(f"`num_frames` must be at least 2 to show a motion, but is {num_frames}.")
    cell = IMAGE_SIZE / GRID_SIZE
    frames = []
    for number in range(num_frames):
        share = cell * number / (num_frames - 1)
        objects = []
        for item, move in zip(scene.objects, scene.moves, strict=True):
            x, y = STEPS.get(move, (0, 0))
            objects.append(replace(item, offset=(item.offset[0] + share * x, item.offset[1] + share * y)))
        frames.append(render(Scene(scene.id, tuple(objects), scene.background)))
    return frames


def encode_video(scene: MovingScene, num_frames: int, order: Sequence[int] | None = None) -> bytes:
    """Encode a scene as an animated PNG of `FRAMES_PER_SECOND`: lossless, and every video decoder reads it.

    Frames are shown in `order`; by default from start to end.
    """
    stream = io.BytesIO()
    frames = render_frames(scene, num_frames)
    first, *others = frames if order is None else [frames[number] for number in order]
    # Pillow merges frames that show the same unless they are laid on in different ways; opaque ones look alike.
    first.save(
        stream,
        "PNG",
        save_all=True,
        append_images=others,
        duration=1000 / FRAMES_PER_SECOND,
        loop=0,
        blend=[number % 2 for number in range(num_frames)],
        compress_level=1,
    )
    return stream.getvalue()


def motion_templates(max_moving: int, max_objects: int = GRID_SIZE) -> tuple[Template, ...]:
    """The forms of questions about motion; an object that is alone always moves."""
    directions = (*STEPS, STILL) if max_objects > 1 else tuple(STEPS)
    return (
        Template("direction", directions, _direction),
        Template("moving color", tuple(COLORS), _mover("color")),
        Template("moving shape", SHAPES, _mover("shape")),
        Template("moving count", NUMBERS[: max_moving + 1], _count),
    )


def _direction(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
    assert isinstance(scene, MovingScene), "drawn by `sample_moving_scene`"
    named = [item for item in scene.going(answer) if item in scene.unique()]
    # An object that stays is asked for among others that move, or stillness would be seen from afar.
    if not named or (answer == STILL and not scene.num_moving):
        return None
    item = rng.choice(named)
    return f"which way does the {item.color} {item.shape} move?", "which way does it move?"


def _mover(name: str) -> Proposer:
    def propose(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
        assert isinstance(scene, MovingScene), "drawn by `sample_moving_scene`"
        known = [way for way in STEPS if [getattr(o, name) for o in scene.going(way)] == [answer]]
        if not known:
            return None
        question = f"what {name} is the object that moves {rng.choice(known)}?"
        return question, f"what {name} is the one that moves?"

    return propose


def _count(scene: Scene, rng: random.Random, pool: ScenePool, answer: str) -> Proposal | None:
    assert isinstance(scene, MovingScene), "drawn by `sample_moving_scene`"
    if scene.num_moving != NUMBERS.index(answer):
        return None
    return "how many objects move?", "how many objects move?"
