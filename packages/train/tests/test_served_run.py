"""A run that serves all its tasks at once: every answer is the run's own, whatever is asked beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from weft.core.testing.processed import tiny
from weft.eval.serving.endpoint import make_app
from weft.eval.testing.served import asked, chat, served
from weft.train.cli import main
from weft.train.errors import RunError
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.run import execute
from weft.train.runs.served import Served, load_served
from weft.train.testing.own_data import own_task, short_run, write_own_data

Wanted = list[tuple[str, str, list[str], str]]


def questions(run: Path, recipe: Recipe) -> Wanted:
    """Task, text, images and the run's own answer to each record of its test splits."""
    found: Wanted = []
    for name, data in load_tasks(recipe, ("test",)).items():
        kept = json.loads((run / "predictions" / f"{name}.json").read_text())
        for record in data["test"]:
            text = getattr(record, "question", getattr(record, "sentence", ""))
            shown = [
                f"data:image/png;base64,{base64.b64encode(ref.read()).decode()}"
                for ref in record.media_refs()
            ]
            found.append((name, text, shown, kept[record.id]))
    return found


def served_answers(run: Served, wanted: Wanted, count: int) -> tuple[list[str], list[int]]:
    """Answers to so many requests, 16 at a time, the tasks mixed, and the sizes of the batches."""
    tasks = {name: run.recipe.tasks[name].max_new_tokens for name in run.types}
    app = make_app(run.answer, tasks)

    def one(number: int) -> str:
        task, text, shown, _ = wanted[number * 7 % len(wanted)]
        status, said = asked(port, chat(task, text, *shown))
        assert status == 200, said
        assert said["model"] == task
        return str(said["choices"][0]["message"]["content"])

    with served(app) as port, ThreadPoolExecutor(16) as pool:
        said = list(pool.map(one, range(count)))
    return said, app.state.batching.batches


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    root = tmp_path_factory.mktemp("served")
    data = write_own_data(root / "data")
    values = {
        "name": "served",
        "backbone": {"name": str(tiny("llava").save(root / "model"))},
        "method": {"method": "lora", "rank": 4, "linears": ["query", "value", "down"], "sharing": "multiple"},
        "tasks": {
            "vqa": own_task(data, "image_qa", ask="{question} One word.", metric="exact", max_new_tokens=4),
            "long": own_task(data, "image_qa", ask="{question}", metric="exact", max_new_tokens=9),
            "caption": own_task(data, "caption", ask="Describe.", max_new_tokens=6),
            "searched": own_task(data, "caption", ask="Describe.", max_new_tokens=6, num_beams=2),
        },
        **short_run(root / "runs", steps=12, batch_size=8, learning_rate=5e-2),
    }
    recipe = load_recipe(values)
    return execute(recipe).folder, recipe


def test_two_hundred_mixed_requests_are_answered_as_the_run_answers(run: tuple[Path, Recipe]) -> None:
    folder, recipe = run
    wanted = questions(folder, recipe)
    assert len({answer for *_, answer in wanted}) > 3
    said, batches = served_answers(load_served(folder), wanted, 200)
    assert said == [wanted[number * 7 % len(wanted)][3] for number in range(200)]
    assert max(batches) > 4


def test_runs_of_weft_models_are_served_too(
    values: dict[str, Any], finished: Callable[[Recipe], Any]
) -> None:
    recipe = load_recipe(values)
    folder = finished(recipe).folder
    wanted = questions(folder, recipe)
    said, _ = served_answers(load_served(folder), wanted, 40)
    assert said == [wanted[number * 7 % len(wanted)][3] for number in range(40)]


def test_a_request_with_another_number_of_images_than_its_task_is_told(run: tuple[Path, Recipe]) -> None:
    one = load_served(run[0])
    with served(make_app(one.answer, dict.fromkeys(one.types, 9))) as port:
        status, said = asked(port, chat("vqa", "What?"))
    assert (status, "must be 1 encoded image, as task 'vqa'" in said["error"]["message"]) == (400, True)


def test_what_cannot_be_asked_is_not_served(
    run: tuple[Path, Recipe],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(tmp_path)])
    assert ended.value.code == 2
    assert "`RUN` must be the folder of a finished run" in capsys.readouterr().err
    monkeypatch.setattr("weft.train.runs.served.RECORDS", {})
    with pytest.raises(RunError, match="`RUN` must have a task that can be asked"):
        load_served(run[0])


def test_the_command_says_where_it_answers(
    run: tuple[Path, Recipe], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    told = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: told.update(options))
    with pytest.raises(SystemExit):
        main(["serve", str(run[0]), "--port", "8123"])
    assert (
        "http://127.0.0.1:8123/v1/chat/completions answers as vqa, long, caption, searched"
        in capsys.readouterr().out
    )
    assert told["host"] == "127.0.0.1"
