"""Rendered scenes: six tasks about coloured shapes, drawn from a seed, no files needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.errors import InvalidArgumentError, require_known
from weft.data.media.reference import MediaRef
from weft.data.records.caption import Caption
from weft.data.records.image_qa import ImageQA
from weft.data.records.pair_bool import PairBool
from weft.data.records.record import Record
from weft.data.records.retrieval import Retrieval
from weft.data.records.source import Source
from weft.data.records.video_qa import VideoQA
from weft.data.scenes.captions import draw_captions
from weft.data.scenes.examples import SceneExample, ScenePool, Template, draw_questions
from weft.data.scenes.films import BACKWARDS, draw_films
from weft.data.scenes.motion import motion_templates, sample_moving_scene
from weft.data.scenes.pairs import draw_statements
from weft.data.scenes.questions import GQA_TEMPLATES, VQA_TEMPLATES
from weft.data.scenes.scene import GRID_SIZE
from weft.data.scenes.store import MotionStore, SceneStore

TASKS = ("vqa", "gqa", "nlvr", "caption", "motion", "motion_retrieval")
VIDEOS = ("motion", "motion_retrieval")
NUM_ANNOTATORS = 10
_MIN_OBJECTS = 2


def read(
    source: Source,
    split: str,
    *,
    task: str = "vqa",
    size: int = 1_000,
    num_scenes: int = 1_000,
    seed: int = 0,
    min_objects: int = _MIN_OBJECTS,
    max_objects: int = GRID_SIZE,
    templates: Sequence[str] | None = None,
    max_moving: int = 3,
    num_frames: int = 8,
    shuffled: bool = False,
) -> Iterator[Record]:
    """Yield the records of one task.

    All tasks about images of a split that agree in `num_scenes`, `seed` and the numbers of objects speak of the
    same images. Training scenes leave out the combinations of `weft.data.scenes.scene.HELD_OUT`; `extra["novel"]`
    marks scenes that hold one.

    Options:
        task: `vqa` (attributes, existence, counts), `gqa` (relations, two hops), `nlvr` (true or false about a
            pair of images), `caption` (all objects from left to right), `motion` (short videos, of which no
            single frame answers the question) or `motion_retrieval` (videos and texts that tell how objects move;
            every video is there a second time, backwards, and outside training no text is there twice).
        size: Number of records.
        num_scenes: Number of scenes to draw them from.
        seed: Seed of scenes and texts.
        min_objects: Smallest number of objects of a scene; more make every task harder.
        max_objects: Largest number of objects of a scene, at most 5.
        templates: Names of the forms of questions to draw, such as `two hops color`; by default all of the task.
        max_moving: Largest number of objects that move (videos only).
        num_frames: Frames of a video (videos only).
        shuffled: Show the frames of every video in a random order, which says what their order is worth (videos
            only).
    """
    require_known("task of scenes", TASKS, task)
    if size < 1 or num_scenes < 2:
        raise InvalidArgumentError(
            f"`size` must be at least 1 and `num_scenes` at least 2, but they are {size} and {num_scenes}."
        )
    chosen = _chosen(task, templates, max_moving, max_objects)
    objects = {"min_objects": min_objects, "max_objects": max_objects}
    film = {"max_moving": max_moving, "num_frames": num_frames, "shuffled": shuffled}
    pool, store = _drawn(split, num_scenes, seed, objects, film if task in VIDEOS else {})
    if task == "motion_retrieval":
        examples = draw_films(pool, size, seed, distinct=split != "train")
    elif chosen:
        examples = draw_questions(chosen, pool, size, f"{task}/{seed}")
    else:
        examples = (draw_statements if task == "nlvr" else draw_captions)(pool, size, seed)
    return (_record(example, task, pool, store) for example in examples)


def _drawn(
    split: str, num_scenes: int, seed: int, objects: dict[str, int], film: dict[str, Any]
) -> tuple[ScenePool, SceneStore]:
    """The scenes of a split, and the store that shows them."""
    name = split
    if tuple(objects.values()) != (_MIN_OBJECTS, GRID_SIZE):
        name = f"{name}-{objects['min_objects']}to{objects['max_objects']}"
    told: dict[str, Any] = {"seed": seed, "allow_held_out": split != "train", **objects}
    if not film:
        return ScenePool.draw(name, num_scenes, **told), SceneStore(name, num_scenes, **told)
    moving = film["max_moving"]
    name = f"{name}-{moving}moving-{film['num_frames']}frames"
    pool = ScenePool.draw(name, num_scenes, draw_scene=sample_moving_scene, max_moving=moving, **told)
    return pool, MotionStore(name, num_scenes, **told, **film)


def _chosen(
    task: str, names: Sequence[str] | None, max_moving: int, max_objects: int
) -> tuple[Template, ...]:
    """The forms of questions of a task; none for tasks that ask no questions."""
    motion = motion_templates(max_moving, max_objects)
    known = {"vqa": VQA_TEMPLATES, "gqa": GQA_TEMPLATES, "motion": motion}.get(task, ())
    by_name = {template.name: template for template in known}
    require_known(f"template of task {task!r} of scenes", by_name, *(names or ()))
    return tuple(by_name[name] for name in names) if names else tuple(known)


def _record(example: SceneExample, task: str, pool: ScenePool, store: SceneStore) -> Record:
    kind = "video" if task in VIDEOS else "image"
    images = tuple(MediaRef(store.name(k), store, kind) for k in example.scenes)  # type: ignore[arg-type]  # one of two words
    extra = {"template": example.template, "novel": any(pool.scenes[k].is_novel for k in example.scenes)}
    said: dict[str, Any] = {"id": example.id, "extra": extra}
    if task == "nlvr":
        label = example.target == "true"
        return PairBool(**said, images=images, group_id=example.group, sentence=example.text, label=label)
    media_id = f"{pool.name}-{example.scenes[0]}"
    if task == "motion":
        question, answers = example.text, (example.target,)
        return VideoQA(**said, video=images[0], media_id=media_id, question=question, answers=answers)
    if task == "motion_retrieval":
        assert isinstance(store, MotionStore), "made above"
        number, turned = example.scenes[0], example.template == BACKWARDS
        name = store.name_backwards(number) if turned else store.name(number)
        film, text = MediaRef(name, store, "video"), example.target
        return Retrieval(**said, media=film, media_id=example.id, text=text, text_id=text)
    if task == "caption":
        return Caption(**said, media=images[0], media_id=media_id, captions=(example.target,))
    return ImageQA(
        **said,
        image=images[0],
        image_id=media_id,
        question=example.text,
        answers=(example.target,) * (NUM_ANNOTATORS if task == "vqa" else 1),
        question_type=example.template.split(":")[0],
        answer_type="yes/no" if example.target in ("yes", "no") else "other",
        soft_targets={example.target: 1.0},
    )


SPEC = DatasetSpec(
    name="scenes",
    record_type="image_qa",
    splits=("train", "validation", "test"),
    read=read,
    summary="Questions, statements about pairs, captions and short videos of scenes; generated, no files needed.",
    licence="MIT (generated)",
    how_to_get="Nothing to get: the scenes are drawn from a seed.",
    needs_root=False,
)
