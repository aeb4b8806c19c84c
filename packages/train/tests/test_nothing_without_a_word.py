"""Runs that would learn nothing are refused, and so are served rows without the images that their task shows."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weft.data import ImageQA, PairBool
from weft.train.errors import RunError
from weft.train.preflight.fitness import check_fit
from weft.train.preflight.tasks import TaskData, load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.runs.served import load_predictor


def without_answers(data: TaskData, keep: int = 0) -> TaskData:
    bare = [
        record
        if row < keep
        else replace(record, label=None)
        if isinstance(record, PairBool)
        else replace(record, answers=(), soft_targets={})
        for row, record in enumerate(data["train"])
    ]
    return TaskData({**data.splits, "train": data["train"].with_records(bare)})


@pytest.mark.parametrize("task", ["vqa", "nlvr"])
def test_training_records_without_a_single_answer_are_refused(values, task):
    recipe = load_recipe(values)
    tasks = load_tasks(recipe)
    check_fit(recipe, {**tasks, task: without_answers(tasks[task], keep=1)})
    hidden = {**tasks, task: without_answers(tasks[task])}
    with pytest.raises(
        RunError, match=f"`tasks.{task}.data.train` must name records with answers, but none of its 40"
    ):
        check_fit(recipe, hidden)
    with pytest.raises(RunError, match="must name records with answers"):
        execute(recipe, tasks=hidden)
    assert not (Path(values["output"]) / "tiny" / "adapter").exists()


def encoded(record, size=(40, 30)):
    rng = np.random.default_rng(len(record.id))
    found = []
    for _ in record.media_refs():
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def test_a_served_statement_is_judged_with_all_images_of_its_task(values):
    recipe = load_recipe({**values, "training": {**values["training"], "steps": 1}})
    tasks = load_tasks(recipe)
    execute(recipe, tasks=tasks)
    folder = Path(values["output"]) / "tiny"
    types = {"vqa": ImageQA.record_type, "nlvr": PairBool.record_type}
    record = tasks["nlvr"]["test"][0]
    count = len(record.media_refs())
    answer = load_predictor(folder, types, {"vqa": 1, "nlvr": 2})
    first = encoded(tasks["vqa"]["test"][0])[0]
    pair = (first, encoded(record)[0])
    assert count in (1, 2)
    assert answer("nlvr", ["a star"], [pair])[0] in ("true", "false")
    for given in ((first,), (first, None), (first, b""), (None, first), (first, float("nan"))):
        with pytest.raises(
            RunError, match="`images` of row 1 must be 2 encoded images, as task 'nlvr' was trained on"
        ):
            answer("nlvr", ["a star", "a star"], [pair, given])
    assert len(answer("vqa", ["what"], [(first, None)])) == 1
    for given in (pair, (None,), ()):
        with pytest.raises(
            RunError, match=r"`images` of row 0 must be 1 encoded image, as task 'vqa' .* Fill `image` alone"
        ):
            answer("vqa", ["what"], [given])
    either = load_predictor(folder, types)
    assert all(len(either("nlvr", ["a star"], [given])) == 1 for given in (pair, (first,)))


def test_tasks_that_show_other_numbers_of_images_are_not_drawn_into_one_batch(values):
    training = {**values["training"], "mixing": {"unit": "mixed"}}
    recipe = load_recipe({**values, "training": training})
    tasks = load_tasks(recipe)
    with pytest.raises(
        RunError, match=r"`training.mixing.unit` .* show 1 \(task '\w+'\) and 2 \(task 'nlvr'\)"
    ):
        check_fit(recipe, tasks)
    alone = load_recipe({**values, "training": training, "tasks": {"nlvr": values["tasks"]["nlvr"]}})
    check_fit(alone, {"nlvr": tasks["nlvr"]})


def test_records_of_a_task_that_show_other_numbers_of_images_are_refused(values):
    recipe = load_recipe(values)
    tasks = load_tasks(recipe)
    records = list(tasks["nlvr"]["train"])
    records[3] = replace(records[3], images=records[3].images[:1])
    uneven = TaskData({**tasks["nlvr"].splits, "train": tasks["nlvr"]["train"].with_records(records)})
    with pytest.raises(
        RunError, match=r"`tasks.nlvr.data.train` must show the same number .* some show 1 and some 2"
    ):
        check_fit(recipe, {**tasks, "nlvr": uneven})
