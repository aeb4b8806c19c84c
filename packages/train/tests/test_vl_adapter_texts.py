"""What the video tasks of VL-Adapter read, to the letter of the authors' code."""

import json

import pytest

from weft.eval.evaluate.inputs import example
from weft.train.preflight.reading import text_rules
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe

SUBTITLES = [
    {"text": " Beckett : Hello there. ", "start": 0.0, "end": 1.5},
    {"text": "(Castle:) In the span", "start": 3.0, "end": 5.0},
    {"text": "Much later.", "start": 60.2, "end": 61.0},
]
OPTIONS = ["A gun", "a phone.", " nothing. ", "keys", "U.S. map"]
SPEECH = "[Subs] Beckett : Hello there. (Castle:) In the span Much later."
CHOICES = "[Choices] a0: A gun. a1: a phone. a2: nothing. a3: keys."


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    def build(name):
        root = tmp_path / "video" / "ann"
        asked = {"qid": 1, "q": " What did he hold? ", "ts": "0-5.50", "answer_idx": 1, "vid_name": "v"}
        choices = {f"a{k}": text for k, text in enumerate(OPTIONS)}
        clip = {"vid_name": "v", "clip_id": 7, "descs": [{"desc": "He waits."}]}
        files = {
            "tvqa/tvqa_train.jsonl": {**asked, **choices},
            "how2qa/how2qa_train_release.jsonl": {**asked, **{f"a{k}": OPTIONS[k] for k in range(4)}},
            "tvc/tvc_train_release.jsonl": {**clip, "ts": [35.73, 40.9], "duration": 94.0},
            "yc2c/yc2c_train_release.jsonl": clip,
        }
        files |= {
            f"{name}_subtitles.jsonl": {"vid_name": "v", "sub": SUBTITLES} for name in ("tv", "how2", "yc2")
        }
        for path, value in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(json.dumps(value) + "\n", encoding="utf-8")
        monkeypatch.setenv("WEFT_DATA", str(tmp_path))
        tasks = ("tvqa", "how2qa", "tvc", "yc2c")
        return load_recipe(name, [f"tasks.{task}.batch_size=1" for task in tasks])

    return build


def texts(recipe):
    found = {}
    for name, data in load_tasks(recipe, ("train",)).items():
        (record,) = data["train"]
        drawn = example(record, name, seed=0, epoch=0)
        found[name] = (text_rules(recipe.tasks[name]).written(drawn.text), drawn.target)
    return found


@pytest.mark.parametrize("language", ["bart", "t5"])
def test_texts_are_those_of_the_authors_code(recipe, language):
    assert texts(recipe(f"vl_adapter/video/{language}/single_adapter")) == {
        "tvqa": (f"{SPEECH} [Q] What did he hold? [TS] (0-5.50) {CHOICES} a4: U.S. map. tvqa: ", "a1"),
        "how2qa": (f"{SPEECH} [Q] What did he hold? [TS] (0-5.50) {CHOICES} how2qa: ", "a1"),
        "tvc": (f"{SPEECH} [TS] ([35.73, 40.9]) tvc: ", "He waits."),
        "yc2c": (f"{SPEECH} yc2c: ", "He waits."),
    }


def test_the_speech_of_the_span_alone_is_an_option(recipe):
    made = recipe("vl_adapter/video/bart/single_adapter")
    made.tasks["tvqa"].data.options["subtitles"] = "span"
    assert texts(made)["tvqa"][0].startswith(
        "[Subs] Beckett : Hello there. (Castle:) In the span [Q] What did he hold? [TS] (0-5.50) [Choices]"
    )
