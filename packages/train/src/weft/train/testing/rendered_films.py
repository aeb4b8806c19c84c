"""Rendered films with captions, every one of which is in the test backwards too, and how well a model finds them.

In a film of four frames one object moves along a row or a column of the middle nine cells ("red star top left right":
in the top row, from left to right), and in one of the two frames between its start and its end another object is shown
instead. A film and its reverse have the same frames, so that nothing but their order decides between their captions.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from weft.data.scenes.scene import GRID_SIZE, Scene, SceneObject, sample_scene
from weft.train.testing.rendered_pairs import (
    COLUMNS,
    PATCH,
    ROWS,
    Pairs,
    by_stage,
    drawn,
    is_central,
    matched,
    paired,
    what,
)

FRAMES = 4


@dataclass(frozen=True)
class Film:
    """One object that moves to another place of its row or column, and another that is seen once.

    Attributes:
        scene: The object where it starts.
        column: Column where it ends.
        row: Row where it ends.
        other: The other object.
        seen: Frame that shows the other.
    """

    scene: Scene
    column: int
    row: int
    other: Scene
    seen: int

    def caption(self) -> str:
        """Colour, shape, the row or column along which it moves, start and end."""
        item = self.scene.objects[0]
        return self._told((item.column, item.row), (self.column, self.row))

    def reversed_caption(self) -> str:
        """The caption of the film backwards."""
        item = self.scene.objects[0]
        return self._told((self.column, self.row), (item.column, item.row))

    def frames(self) -> Tensor:
        """What is shown, shape `(FRAMES, 3, SIDE, SIDE)`."""
        return torch.stack(
            [drawn(self.other if number == self.seen else self._moved(number)) for number in range(FRAMES)]
        )

    def _told(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        columns = [COLUMNS[column - 1] for column, _ in (start, end)]
        rows = [ROWS[row - 1] for _, row in (start, end)]
        line = [rows[0], *columns] if rows[0] == rows[1] else [columns[0], *rows]
        return " ".join([what(self.scene), *line])

    def _moved(self, number: int) -> Scene:
        item: SceneObject = self.scene.objects[0]
        share = PATCH * number / (FRAMES - 1)
        x, y = share * (self.column - item.column), share * (self.row - item.row)
        offset = (item.offset[0] + x, item.offset[1] + y)
        return replace(self.scene, objects=(replace(item, offset=offset),))


def rendered_films(name: str, size: int, *, distinct: bool = False, avoid: Collection[str] = ()) -> Pairs:
    """An even number of films, each followed by its reverse, drawn from the name alone; see `rendered_pairs`."""
    seen = set(avoid)
    films: list[Tensor] = []
    captions: list[str] = []
    number = 0
    while len(captions) < size:
        film = _sampled(f"{name}-{number}")
        number += 1
        if film is None or {film.caption(), film.reversed_caption()} & seen:
            continue
        pair = [film.caption(), film.reversed_caption()]
        if distinct:
            seen.update(pair)
        frames = film.frames()
        captions += pair
        films += [frames, frames.flip(0)]
    return paired(torch.stack(films), captions)


def film_scores(model: Any, films: Pairs, *, frame_aware: bool = False) -> dict[str, float]:
    """How many films and captions find each other, in percent.

    Args:
        model: A `BlipRetrieval`.
        films: Films of distinct captions, each followed by its reverse.
        frame_aware: Whether frames that look like the text count more in the second stage.

    Returns:
        For the stages `similarity` and `matched`, in both directions: `R@1` and `R@5`; `either R@1`, where a film and
        its reverse count as the same; and `order`, how many are ranked before their reverse
        (one that is not among the candidates comes last).
    """
    matches, records = matched(model, films, similarity_weight=1.0, frame_aware=frame_aware)
    reverse = {own: films.captions[row ^ 1] for row, own in enumerate(films.captions)}
    found: dict[str, float] = {}
    for stage, outcome, scores in by_stage(matches, records):
        ranked = outcome.ranked(len(records))
        for way, side in (("i2t", "image_to_text"), ("t2i", "text_to_image")):
            found |= {f"{stage} {way} {recall}": scores[f"{way}_{recall}"] for recall in ("R@1", "R@5")}
            lists = ranked[side]
            found[f"{stage} {way} either R@1"] = _share(
                best[0] in (own, reverse[own]) for own, best in lists.items()
            )
            found[f"{stage} {way} order"] = _share(
                _before(own, reverse[own], best) for own, best in lists.items()
            )
    return found


def _share(outcomes: Iterable[bool]) -> float:
    return 100 * mean(outcomes)


def _before(own: str, other: str, best: list[str]) -> bool:
    return own in best and (other not in best or best.index(own) < best.index(other))


def _sampled(name: str) -> Film | None:
    scene, other = (
        sample_scene(f"{name}-{part}", 0, min_objects=1, max_objects=1) for part in ("mover", "other")
    )
    if not (is_central(scene) and is_central(other)) or what(scene) == what(other):
        return None
    rng = random.Random(name)
    item = scene.objects[0]
    middle = range(1, GRID_SIZE - 1)
    ends = [(column, item.row) for column in middle if column != item.column]
    ends += [(item.column, row) for row in middle if row != item.row]
    column, row = rng.choice(ends)
    return Film(scene, column, row, other, rng.randrange(1, FRAMES - 1))
