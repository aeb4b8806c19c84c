"""The endpoint of many tasks: nothing is lost or mixed up, bad requests are refused, and the server keeps running."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from weft.eval.errors import ScoreInputError
from weft.eval.serving.batching import Question
from weft.eval.serving.endpoint import ServingLimits, make_app
from weft.eval.serving.pictures import PictureLimits
from weft.eval.testing.served import asked, chat, served

LIMITS = ServingLimits(
    body=60_000,
    images=2,
    picture=PictureLimits(bytes=30_000, pixels=5000),
    text=200,
    upload=0.7,
    seconds=1.5,
    batch_size=8,
    wait=0.02,
    waiting=12,
)


DEEP = 900  # JSON is read so deep
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
POSTSCRIPT = f"data:image/png;base64,{b64encode(EPS).decode()}"


def picture(width: int = 30, height: int = 20) -> str:
    buffer = BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def answer(questions: Sequence[Question]) -> list[str]:
    if any(question.text == "slow" for question in questions):
        time.sleep(3)
    if any(question.text == "bad" for question in questions):
        raise ScoreInputError("`text` must not be bad, but is. Ask something else.")
    if any(question.text == "broken" for question in questions):
        raise RuntimeError("/secret/path")
    time.sleep(0.005)
    return [f"{each.task} says {each.text} of {len(each.images)}" for each in questions]


@pytest.fixture(scope="module")
def app() -> Any:
    return make_app(answer, {"vqa": 20, "caption": 30, "talk": 20}, LIMITS, talks=["talk"])


@pytest.fixture(scope="module")
def port(app: Any) -> Iterator[int]:
    with served(app) as found:
        yield found


def is_well(port: int) -> bool:
    status, found = asked(port, chat("vqa", "well?", picture()))
    return status == 200 and found["choices"][0]["message"]["content"] == "vqa says well? of 1"


def test_mixed_questions_are_answered_together_and_each_by_its_task(port: int, app: Any) -> None:
    def one(number: int) -> tuple[str, str]:
        task = ("vqa", "caption")[number % 2]
        status, found = asked(port, chat(task, str(number), *[picture()] * (number % 3)))
        assert status == 200, found
        assert found["model"] == task
        return found["choices"][0]["message"]["content"], f"{task} says {number} of {number % 3}"

    before = len(app.state.batching.batches)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(one, range(100)))
    assert [own for own, _ in said] == [wanted for _, wanted in said]
    assert max(app.state.batching.batches[before:]) > 1


BAD: list[tuple[str, Any, int, str]] = [
    ("no json", b"{", 400, "must be JSON"),
    ("deep json", b"[" * 50_000, 400, "must be JSON"),
    ("no object", b"[]", 400, "must be a JSON object"),
    ("unknown task", chat("vqaa", "x"), 404, "Did you mean 'vqa'"),
    ("no task", {"messages": []}, 404, "`model`"),
    ("no message", {"model": "vqa"}, 400, "`messages` must hold one message"),
    (
        "system",
        {"model": "vqa", "messages": [{"role": "system", "content": "x"}]},
        400,
        "`role` must be 'user'",
    ),
    (
        "part",
        {"model": "vqa", "messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        400,
        "of type text or",
    ),
    (
        "content",
        {"model": "vqa", "messages": [{"role": "user", "content": 5}]},
        400,
        "`content` must be a text",
    ),
    (
        "image",
        {"model": "vqa", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        400,
        "`image_url` must be",
    ),
    ("temperature", chat("vqa", "x", temperature=0.7), 400, "`temperature` must be left out"),
    ("stream", chat("vqa", "x", stream=True), 400, "`stream` must be left out"),
    ("length", chat("vqa", "x", max_tokens=3), 400, "`max_tokens` must be at least 20"),
    ("no picture", chat("vqa", "x", "data:image/png;base64,AAAA"), 400, "must be a picture file"),
    ("pixels", chat("vqa", "x", picture(100, 100)), 400, "at most 5,000 pixels"),
    ("host", chat("vqa", "x", "http://169.254.169.254/a.png"), 400, "hosts that are allowed by name"),
    ("images", chat("vqa", "x", *[picture()] * 3), 413, "at most 2 images, but shows 3"),
    ("text", chat("vqa", "x" * 300), 413, "at most 200 characters"),
    ("body", chat("vqa", "x" * 70_000), 413, "at most 60,000 bytes"),
    (
        "surrogate",
        b'{"model": "vqa", "messages": [{"role": "user", "content": "\\ud800"}]}',
        400,
        "half of a surrogate",
    ),
    ("surrogate host", chat("vqa", "x", "http://\ud800/a.png"), 400, "hosts that are allowed by name"),
    ("surrogate task", chat("\ud800", "x"), 404, "`model` must be among the known names"),
    ("long task", chat("v" * 30_000, "x"), 404, f"but is '{'v' * 80}'. Choose"),
    ("long key", chat("vqa", "x", tools="v" * 30_000), 400, f"but is '{'v' * 79}…."),
    ("long role", {"model": "vqa", "messages": [{"role": ["v" * 30_000]}]}, 400, f"but is ['{'v' * 78}…."),
    (
        "deep key",
        b'{"model": "vqa", "tools": %b}' % (b"[" * DEEP + b"]" * DEEP),
        400,
        "`tools` must be left out",
    ),
    ("PostScript", chat("vqa", "x", POSTSCRIPT), 400, "must be a picture file"),
    ("slow answer", chat("vqa", "slow"), 504, "must come within 1.5 seconds"),
    ("refused", chat("vqa", "bad"), 400, "must not be bad"),
    ("defect", chat("vqa", "broken"), 500, "could not answer (RuntimeError)"),
]


@pytest.mark.parametrize(
    ("body", "status", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_a_bad_request_gets_a_clear_error_and_the_server_goes_on(
    port: int, body: Any, status: int, message: str
) -> None:
    code, found = asked(port, body)
    assert (code, message in found["error"]["message"]) == (status, True), found
    assert "/secret" not in json.dumps(found)
    if status == 504:
        time.sleep(2)
    assert is_well(port)


def test_a_model_that_answers_too_few_is_said_and_the_server_goes_on() -> None:
    def too_few(questions: Sequence[Question]) -> list[str]:
        return [] if questions[0].text == "none" else answer(questions)

    with served(make_app(too_few, {"vqa": 20}, LIMITS)) as found:
        assert asked(found, chat("vqa", "none"))[0] == 500
        assert is_well(found)


def test_a_question_that_cannot_be_answered_spoils_no_other(port: int) -> None:
    texts = ["bad", "a", "b", "broken", "c", "d"]
    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda text: asked(port, chat("caption", text))[0], texts))
    assert said == [400, 200, 200, 500, 200, 200]


def test_a_task_of_conversations_takes_several_messages_with_their_images_in_their_places(port: int) -> None:
    shown = {"type": "image_url", "image_url": {"url": picture()}}
    messages = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": [shown, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": [{"type": "text", "text": "And "}, shown]},
    ]
    status, said = asked(port, {"model": "talk", "messages": messages})
    assert status == 200
    text = said["choices"][0]["message"]["content"]
    told = json.loads(text.removeprefix("talk says ").removesuffix(" of 2"))
    assert [turn["role"] for turn in told] == ["system", "user", "assistant", "user"]
    assert told[1]["content"] == [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert told[3]["content"] == [{"type": "text", "text": "And "}, {"type": "image"}]
    for bad in ([], [*messages, {"role": "tool", "content": "x"}]):
        assert asked(port, {"model": "talk", "messages": bad})[0] == 400


def test_a_request_that_comes_too_slowly_is_ended(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"
        connection.sendall(head.encode())
        told = connection.recv(1000).decode()
    assert told.startswith("HTTP/1.1 408")
    assert is_well(port)


def test_whoever_hangs_up_in_mid_request_leaves_no_trace() -> None:
    app = make_app(answer, {"vqa": 20}, LIMITS)
    raised: list[BaseException] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            raised.append(error)

    with served(watched) as found:
        with socket.create_connection(("127.0.0.1", found)) as line:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert is_well(found)
        time.sleep(0.2)
    assert raised == []


def test_whoever_comes_when_too_many_wait_is_told_to_come_again(port: int) -> None:
    with ThreadPoolExecutor(40) as pool:
        said = list(pool.map(lambda _: asked(port, chat("vqa", "slow"))[0], range(40)))
    assert set(said) == {503, 504}
    time.sleep(3)
    assert is_well(port)


def test_tasks_are_listed_and_health_is_told(port: int) -> None:
    for path, wanted in (("/v1/models", ["vqa", "caption", "talk"]), ("/health", "ok")):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as found:
            words = json.load(found)
        assert words.get("status") == wanted or [each["id"] for each in words["data"]] == wanted


def test_the_server_ends_when_it_is_told_to(app: Any) -> None:
    before = threading.active_count()
    with served(make_app(answer, {"vqa": 20})) as found:
        assert is_well(found)
    assert threading.active_count() <= before + 1


def test_a_server_for_this_machine_answers_to_its_own_names_alone() -> None:
    with served(make_app(answer, {"vqa": 20}, LIMITS, names=("127.0.0.1", "localhost"))) as found:
        for name, status in (("localhost", 200), (f"127.0.0.1:{found}", 200), ("rebound.example", 400)):
            connection = HTTPConnection("127.0.0.1", found)
            connection.request("GET", "/v1/models", headers={"Host": name})
            assert connection.getresponse().status == status, name
            connection.close()
