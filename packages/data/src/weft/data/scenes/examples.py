"""What the scene tasks are made of: a pool of scenes, examples, and the balance between answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from weft.data.errors import InvalidArgumentError
from weft.data.scenes.scene import HELD_OUT, Scene, sample_scene

MAX_TRIES = 2_000


@dataclass(frozen=True)
class SceneExample:
    """One text about one or two scenes.

    Attributes:
        id: Unique within a task and split.
        scenes: Indices into the pool, in the order in which the images are shown.
        text: What the model reads.
        target: What it should answer.
        template: The form of the text without its colours, shapes, sizes and numbers.
        group: Examples that the consistency score judges together.
    """

    id: str
    scenes: tuple[int, ...]
    text: str
    target: str
    template: str
    group: str


@dataclass(frozen=True)
class ScenePool:
    """The scenes of one split, shared by its tasks."""

    name: str
    scenes: tuple[Scene, ...]
    allow_held_out: bool
    by_word: dict[str, list[int]] = field(repr=False)

    @classmethod
    def draw(
        cls,
        name: str,
        size: int,
        seed: int,
        *,
        allow_held_out: bool,
        draw_scene: Callable[..., Scene] = sample_scene,
        **knobs: int,
    ) -> ScenePool:
        """Draw `size` scenes named `{name}-{number}` from a seed; `knobs` are arguments of `draw_scene`."""
        scenes = tuple(
            draw_scene(f"{name}-{k}", seed, allow_held_out=allow_held_out, **knobs) for k in range(size)
        )
        by_word: dict[str, list[int]] = {}
        for index, scene in enumerate(scenes):
            for word in {w for o in scene.objects for w in (o.color, o.shape, f"{o.color} {o.shape}")}:
                by_word.setdefault(word, []).append(index)
        return cls(name, scenes, allow_held_out, by_word)

    def may_name(self, color: str, shape: str) -> bool:
        """Whether a text of this split may speak of the combination.

        In training no scene holds a held-out combination, so naming one would give "no" away.
        """
        return self.allow_held_out or (color, shape) not in HELD_OUT


Proposal = tuple[str, str]
Proposer = Callable[[Scene, random.Random, ScenePool, str], Proposal | None]


@dataclass(frozen=True)
class Template:
    """A question form: `propose(scene, rng, pool, answer)` gives a question with that answer, or None."""

    name: str
    answers: tuple[str, ...]
    propose: Proposer


def draw_questions(
    templates: Sequence[Template], pool: ScenePool, size: int, seed: int | str
) -> Iterator[SceneExample]:
    """Draw questions whose answers are uniform within each template, so that language alone cannot win.

    The templates take turns. The answer is drawn before the scene; scenes are then tried until one admits a question
    with it.

    Raises:
        InvalidArgumentError: If no scene of the pool admits a question.
    """
    rng = random.Random(f"questions/{pool.name}/{seed}")
    for number in range(size):
        template = templates[number % len(templates)]
        answer = rng.choice(template.answers)
        for _ in range(MAX_TRIES):
            index = rng.randrange(len(pool.scenes))
            proposal = template.propose(pool.scenes[index], rng, pool, answer)
            if proposal is not None:
                break
        else:
            raise InvalidArgumentError(
                f"No scene of the pool {pool.name!r} ({len(pool.scenes)} scenes) admits the template "
                f"{template.name!r} with the answer {answer!r}. Draw a larger pool."
            )
        name, (text, form) = f"{pool.name}-{number}", proposal
        said = f"{template.name}: {form}"
        yield SceneExample(name, (index,), text=text, target=answer, template=said, group=str(index))
