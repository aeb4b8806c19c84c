"""The way of somebody new, by the commands of the README: own pictures, own recipe, scores, tracking, export."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw

pytestmark = pytest.mark.slow

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")


def draw(path: Path, colour: str, shape: str, place: int) -> None:
    """Draw a picture that is wider than high, with one thing in it."""
    picture = Image.new("RGB", (72, 48), "white")
    box = (4 + place, 6, 34 + place, 36)
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=colour)
    picture.save(path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as people have one: pictures, a table of questions for each split, and a model."""
    from weft.core.testing.processed import tiny

    (tmp_path / "my-pictures").mkdir()
    for split, count in (("train", 16), ("test", 8)):
        rows = []
        for number in range(count):
            colour, shape = COLOURS[number % 4], SHAPES[number // 4 % 2]
            name = f"{split}-{number}.png"
            draw(tmp_path / "my-pictures" / name, colour, shape, number)
            rows.append([name, "What colour is it?", colour])
        with (tmp_path / "my-pictures" / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", "question", "answer"], *rows])
    tiny("llava").save(tmp_path / "my-model")
    recipe = {
        "name": "colours",
        "backbone": {"name": "my-model"},
        "method": {"method": "lora", "rank": 4, "sharing": "single"},
        "tasks": {
            "colour": {
                "ask": "{question} Answer with one word.",
                "metric": "exact",
                "max_new_tokens": 4,
                "data": {
                    "name": "table",
                    "root": "my-pictures",
                    "train": "train",
                    "test": "test",
                    "options": {"columns": {"answers": "answer"}},
                },
            }
        },
        "training": {"steps": 6, "batch_size": 4, "learning_rate": 1e-3},
    }
    (tmp_path / "colours.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return tmp_path


def weft(home: Path, *words: str) -> str:
    """What a command prints; it must end well."""
    program = Path(sys.executable).parent / "weft"
    assert program.is_file(), "install weft as the README says"
    done = subprocess.run([program, *words], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"weft {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def test_from_own_pictures_to_scores_tracking_and_another_library(home: Path) -> None:
    assert "demo/single_adapter" in weft(home, "recipes", "list")
    weft(
        home,
        "data",
        "check",
        "table",
        "my-pictures",
        "--split",
        "train",
        "--option",
        "columns={answers: answer}",
    )
    assert "trainable" in weft(home, "plan", "colours.yaml")
    assert "What colour is it? Answer with one word." in weft(home, "train", "colours.yaml", "--dry-run")
    trained = weft(home, "train", "colours.yaml")
    assert "mlflow ui --backend-store-uri sqlite:///" in trained
    run = home / "weft-runs" / "colours"
    assert json.loads((run / "result.json").read_text("utf-8"))["scores"].keys() >= {"colour"}
    score = next(line for line in trained.splitlines() if "colour" in line and "exact" in line).split("│")[3]
    assert score.strip() in weft(home, "evaluate", str(run))
    weft(home, "train", "colours.yaml", "name=other", "seed=1")
    assert "colours" in weft(home, "compare", "--plot", "pareto.png")
    assert (home / "pareto.png").stat().st_size > 1000
    weft(home, "export", "weft-runs/colours", "peft-colours")
    assert (home / "peft-colours" / "adapter_config.json").is_file()
    moved = home / "elsewhere"
    moved.mkdir()
    shutil.copytree(run, moved / "colours")
    assert score.strip() in weft(moved, "evaluate", "colours")
