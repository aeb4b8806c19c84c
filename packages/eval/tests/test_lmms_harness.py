"""The adapter for lmms-eval, against a stand-in that holds what its base class documents.

lmms-eval itself cannot be installed beside this project's releases: it wants torchvision and an older PyAV.
"""

from __future__ import annotations

import abc
import importlib
import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from weft.eval.errors import ScoreInputError


class _Base(abc.ABC):
    """Constructor, abstract methods and attributes of `lmms_eval.api.model.lmms`, release 0.7.3."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *entry: self.kept.append(entry))
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests: Any) -> Any: ...


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    model = ModuleType("lmms_eval.api.model")
    model.lmms = _Base  # type: ignore[attr-defined]
    for name, module in (
        ("lmms_eval", ModuleType("lmms_eval")),
        ("lmms_eval.api", ModuleType("lmms_eval.api")),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, model.__name__, model)
    name = "weft.eval.serving.lmms_harness"
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    yield module
    sys.modules.pop(name, None)


def answer(task: str, questions: Any, images: Any) -> list[str]:
    sizes = [Image.open(io.BytesIO(row[0])).size for row in images]
    return [f"{task} {q} {len(row)} {s}\nmore" for q, row, s in zip(questions, images, sizes, strict=True)]


def requests(count: int, shown: Any = None) -> list[Any]:
    return [
        SimpleNamespace(
            args=(f"q{k}", {"until": ["\n"]}, lambda doc: doc if shown is None else shown, k, "vqav2", "val")
        )
        for k in range(count)
    ]


def documents(count: int) -> Any:
    return {"vqav2": {"val": [[Image.new("L", (k + 1, 2))] for k in range(count)]}}


def test_requests_are_answered_in_order_with_their_images_and_stops(harness: Any) -> None:
    model = harness.HarnessModel(answer, "vqa", batch_size="2")
    model.task_dict = documents(5)
    assert model.generate_until(requests(5)) == [f"vqa q{k} 1 ({k + 1}, 2)" for k in range(5)]
    assert [(kind, key[0]) for kind, key, _ in model.kept] == [("generate_until", f"q{k}") for k in range(5)]
    model = harness.HarnessModel(answer, "vqa")
    model.task_dict = documents(1)
    (request,) = requests(1)
    request.args = (request.args[0], {}, *request.args[2:])
    assert model.generate_until([request])[0].endswith("more")


@pytest.mark.parametrize(
    ("shown", "message"),
    [([], "document 0 of vqav2 shows none"), (["clip.mp4"], "document 0 of vqav2 shows a str")],
)
def test_requests_without_images_are_refused(harness: Any, shown: Any, message: str) -> None:
    model = harness.HarnessModel(answer, "vqa")
    model.task_dict = documents(1)
    with pytest.raises(ScoreInputError, match=message):
        model.generate_until(requests(1, shown))


def talked(model: Any, *said: dict[str, Any]) -> Any:
    model.task_dict = {"mmmu": {"val": ["document"]}}
    args = ("q", lambda document: list(said), {"until": ["\n"]}, 0, "mmmu", "val")
    return model.generate_until([SimpleNamespace(args=args)])


def test_messages_are_answered_with_their_images_and_videos_in_their_places(
    harness: Any, tmp_path: Any
) -> None:
    asked: list[Any] = []

    def talk(conversations: Any) -> list[str]:
        asked.extend(conversations)
        return ["a cat\nand more"] * len(conversations)

    model = harness.ChatHarnessModel(talk, batch_size=2)
    assert model.is_simple is False
    shown = [
        {"type": "text", "text": "Which of "},
        {"type": "image", "url": Image.new("L", (3, 2))},
        {"type": "text", "text": " and "},
        {"type": "video", "url": str(tmp_path / "v.mp4"), "start_time": 1.0, "end_time": None},
    ]
    system = {"role": "system", "content": [{"type": "text", "text": "be short"}]}
    assert talked(model, system, {"role": "user", "content": shown}) == ["a cat"]
    assert model.kept == [("generate_until", ("q", {"until": ["\n"]}), "a cat")]
    (conversation,) = asked
    assert conversation.roles == ("system", "user")
    assert conversation.parts == (("be short",), ("Which of ", None, " and ", None))
    picture, video = conversation.images
    assert picture.image().size == (3, 2)
    assert (video.kind, video.path, video.start, video.end) == ("video", "v.mp4", 1.0, None)
    with pytest.raises(ScoreInputError, match="document 0 of mmmu shows audio as a bytes"):
        talked(model, {"role": "user", "content": [{"type": "audio", "url": b"1"}]})
    with pytest.raises(
        ScoreInputError, match="Document 0 of mmmu cannot be asked: the turns must be those of"
    ):
        talked(model, {"role": "assistant", "content": "yes"})


def test_what_the_adapter_cannot_do_it_says(harness: Any) -> None:
    model = harness.HarnessModel(answer, "vqa")
    with pytest.raises(NotImplementedError, match="Choose the generating form of the task"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="Choose one of a single round"):
        model.generate_until_multi_round([])
    with pytest.raises(ScoreInputError, match="must be a whole number from 1, but is 'auto'"):
        harness.HarnessModel(answer, "vqa", batch_size="auto")
