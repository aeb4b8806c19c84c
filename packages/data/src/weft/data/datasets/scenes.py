"""Rendered scenes: four tasks about coloured shapes, drawn from a seed, no files needed."""

from __future__ import annotations

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.errors import InvalidArgumentError, unknown_name
from weft.data.records import Caption, ImageQA, MediaRef, PairBool, Record
from weft.data.scenes.captions import draw_captions
from weft.data.scenes.examples import SceneExample, ScenePool, draw_questions
from weft.data.scenes.pairs import draw_statements
from weft.data.scenes.questions import GQA_TEMPLATES, VQA_TEMPLATES
from weft.data.scenes.store import SceneStore
from weft.data.source import Source

TASKS = ("vqa", "gqa", "nlvr", "caption")
NUM_ANNOTATORS = 10


def read(
    source: Source,
    split: str,
    *,
    task: str = "vqa",
    size: int = 1_000,
    num_scenes: int = 1_000,
    seed: int = 0,
) -> Iterator[Record]:
    """Yield the records of one task.

    All tasks of a split that agree in `num_scenes` and `seed` speak of the same images. Training scenes leave
    out the combinations of `weft.data.scenes.scene.HELD_OUT`; `extra["novel"]` marks scenes that hold one.

    Args:
        source: Unused; scenes need no files.
        split: Split name.
        task: `vqa` (attributes, existence, counts), `gqa` (relations, two hops), `nlvr` (true or false about a
            pair of images) or `caption` (all objects from left to right).
        size: Number of records.
        num_scenes: Number of scenes to draw them from.
        seed: Seed of scenes and texts.
    """
    if task not in TASKS:
        raise unknown_name("task of scenes", task, TASKS)
    if size < 1 or num_scenes < 2:
        raise InvalidArgumentError(
            f"`size` must be at least 1 and `num_scenes` at least 2, but they are {size} and {num_scenes}."
        )
    allow_held_out = split != "train"
    pool = ScenePool.draw(split, num_scenes, seed, allow_held_out=allow_held_out)
    store = SceneStore(split, num_scenes, seed, allow_held_out)
    if task in ("vqa", "gqa"):
        templates = VQA_TEMPLATES if task == "vqa" else GQA_TEMPLATES
        examples = draw_questions(templates, pool, size, f"{task}/{seed}")
    else:
        examples = (draw_statements if task == "nlvr" else draw_captions)(pool, size, seed)
    for example in examples:
        yield _record(example, task, pool, store)


def _record(example: SceneExample, task: str, pool: ScenePool, store: SceneStore) -> Record:
    images = tuple(MediaRef(f"{pool.name}-{k}.png", store) for k in example.scenes)
    extra = {"template": example.template, "novel": any(pool.scenes[k].is_novel for k in example.scenes)}
    if task == "nlvr":
        return PairBool(
            id=example.id,
            images=images,
            group_id=example.group,
            sentence=example.text,
            label=example.target == "true",
            extra=extra,
        )
    media_id = f"{pool.name}-{example.scenes[0]}"
    if task == "caption":
        return Caption(
            id=example.id, media=images[0], media_id=media_id, captions=(example.target,), extra=extra
        )
    return ImageQA(
        id=example.id,
        image=images[0],
        image_id=media_id,
        question=example.text,
        answers=(example.target,) * (NUM_ANNOTATORS if task == "vqa" else 1),
        question_type=example.template.split(":")[0],
        answer_type="yes/no" if example.target in ("yes", "no") else "other",
        soft_targets={example.target: 1.0},
        extra=extra,
    )


SPEC = DatasetSpec(
    name="scenes",
    task="image_qa",
    splits=("train", "validation", "test"),
    read=read,
    summary="Questions, statements about pairs and captions of rendered scenes; generated, no files needed.",
    licence="MIT (generated)",
    how_to_get="Nothing to get: the scenes are drawn from a seed.",
    needs_root=False,
)
