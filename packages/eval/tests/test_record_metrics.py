"""Metrics by name: what each says of itself, and those of third parties."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weft.core import registry
from weft.data import (
    Caption,
    Classify,
    Conversation,
    ImageQA,
    MediaRef,
    PairBool,
    Retrieval,
    VideoMC,
    VideoQA,
    record_class,
)
from weft.eval import metrics as room
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.metric_fit import check_metric
from weft.eval.evaluate.scoring import reference, score
from weft.eval.metrics.matches import Matches
from weft.eval.metrics.registry import METRICS, Metric, metric_named

IMAGE = MediaRef.from_bytes(b"", "image")
RECORDS: dict[str, Any] = {
    "image_qa": ImageQA(id="1", image=IMAGE, image_id="1", question="?", answers=("red",) * 4),
    "video_qa": VideoQA(id="1", video=IMAGE, media_id="1", question="?", answers=("red",)),
    "video_mc": VideoMC(id="1", video=IMAGE, media_id="1", question="?", options=("a", "b"), answer=1),
    "pair_bool": PairBool(id="1", images=(IMAGE,), group_id="1", sentence="?", label=True),
    "caption": Caption(id="1", media=IMAGE, media_id="1", captions=("a red hat",)),
    "classify": Classify(id="1", image=IMAGE, label=0, class_name="a red hat"),
    "conversation": Conversation(
        id="1",
        roles=("user", "assistant"),
        parts=((None, "?"), ("a red hat",)),
        images=(IMAGE,),
        learned=(1,),
    ),
    "retrieval": Retrieval(id="1", media=IMAGE, media_id="1", text="a hat", text_id="1"),
}


def test_every_metric_of_weft_is_found_without_a_list_of_names() -> None:
    sources = [path.read_text("utf-8") for path in Path(room.__file__).parent.rglob("*.py")]
    stated = re.findall(r'^@register_metric\(\s*"(\w+)"', "".join(sources), flags=re.MULTILINE)
    assert {"anls", "caption", "exact", "gqa", "relaxed", "retrieval", "vqa"} <= set(stated)
    assert {*stated, "nlvr", "nlvr2"} == set(METRICS)
    assert list(METRICS) == sorted(METRICS)


@pytest.mark.parametrize("name", list(METRICS))
def test_a_metric_has_the_headlines_and_scores_the_types_that_it_states(name: str) -> None:
    metric = METRICS[name]
    for record_type in metric.types:
        record = RECORDS[record_type]
        assert isinstance(record, record_class(record_type))
        said: Any = {"1": reference(record)}
        if record_type == "retrieval":
            said = Matches(("1",), ("1",), *2 * [np.ones((1, 2), np.float32)])
        report = score(name, said, [record])
        assert report.headline == metric.headlines[0]
        assert set(metric.headlines) <= {key for key, value in report.scores.items() if value is not None}
        assert report.percent == pytest.approx(100.0) or name == "caption"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ScoreInputError, match=r"`metric` must be one of anls, caption, .*, but is 'exat'"):
        metric_named("exat")


def test_a_metric_of_a_third_party_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def length(predictions: Any, records: Any, groups: Any) -> Any:
        return METRICS["exact"].scorer(dict.fromkeys(predictions, "red"), records, groups)

    foreign = Metric(length, ("image_qa",), ("accuracy",))

    class Entry:
        name = "lenient"

        @staticmethod
        def load() -> Metric:
            return foreign

    own = importlib.metadata.entry_points
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group: [Entry()] if group == "weft.metrics" else own(group=group),
    )
    assert "lenient" in METRICS
    assert score("lenient", {"1": "blue"}, [RECORDS["image_qa"]]).value == 100
    check_metric("lenient", [RECORDS["image_qa"]], "accuracy")


def test_the_names_of_metrics_load_no_torch() -> None:
    code = "import sys; from weft.eval.metrics.registry import METRICS; list(METRICS); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
