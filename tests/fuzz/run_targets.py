"""Targets that read what runs wrote, or serve one: measurements that resume, few-shot runs, requests."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz import model_trees, trees
from tests.fuzz.ours import is_ours
from tests.fuzz.trees import Tree, chosen, files_of, new_place

SHARED = """\
name: shared
backbone: {name: miniature}
method: {method: bottleneck, bottleneck_size: 4, sharing: multiple}
tasks:
  one:
    metric: vqa
    data: {name: scenes, options: {task: vqa, size: 16, num_scenes: 20}, test: null}
  two:
    metric: vqa
    data: {name: scenes, options: {task: vqa, size: 16, num_scenes: 10}, test: null}
training: {steps: 20, batch_size: 4, learning_rate: 1e-2}
tracking: {enabled: false}
"""
QUICK = {"steps": 1, "batches": 2, "looks": 1}


@cache
def shared() -> dict[str, Tree]:
    """What `weft share` measured of two tasks."""
    import yaml

    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.run import train_session
    from weft.train.runs.share.measure import measure

    place, values = new_place("shared"), yaml.safe_load(SHARED)
    measured = measure(load_recipe(values, [f"output={place}"]), train_session, **QUICK)
    return {"shared": Tree(files_of(measured.folder), {"values": values})}


def resume_sharing(data: bytes, folder: Path) -> None:
    """One file of what `weft share` measured, as it resumes."""
    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.run import train_session
    from weft.train.runs.share.command import _cost
    from weft.train.runs.share.measure import measure

    tree, path, content = chosen(data, shared())
    tree.write(folder / "shared.share", path, content)
    recipe = load_recipe(tree.about["values"], [f"output={folder}"])
    _cost(measure(recipe, train_session, **QUICK))


@cache
def few_shot_runs() -> dict[str, Tree]:
    """A finished few-shot run, whose encoder and images stay where they are."""
    from weft.data.testing import image_bytes, write_tree
    from weft.train.recipe.loading import load_any
    from weft.train.runs.few_shot.run import execute_few_shot

    encoder, place = new_place("encoder"), new_place("few-shot")
    model_trees.encoders()["clip"].write(encoder, "other", b"")
    kinds = {"red": (200, 20, 40), "blue": (20, 30, 120)}
    files = {
        f"{split}/{name}/{number}.png": image_bytes((*colour[:2], colour[2] + number))
        for split in ("train", "test")
        for name, colour in kinds.items()
        for number in range(4)
    }
    values = {
        "name": "in",
        "encoder": {"name": str(encoder)},
        "data": {
            "name": "image_folder",
            "root": str(write_tree(new_place("images"), files)),
            "validation": None,
        },
        "heads": [{"method": "zero_shot"}, {"method": "tip_adapter", "search_steps": [3, 3]}],
        "shots": [1],
        "seeds": [1],
        "views": {"count": 1, "augment": False},
        "tracking": {"enabled": False},
        "output": str(place),
        "threads": 1,
    }
    recipe: Any = load_any(values)
    return {"few": Tree(files_of(execute_few_shot(recipe).folder))}


def rescore_few_shot_run(data: bytes, folder: Path) -> None:
    """One file of a few-shot run, as `weft evaluate` reads it."""
    from weft.train.runs.few_shot.rescore import rescore_few_shot

    tree, path, content = chosen(data, few_shot_runs())
    if path != "recipe.yaml":  # another recipe may be of any size
        tree.write(folder, path, content)
        rescore_few_shot(folder)


class Watched:
    """An application of `weft serve` that keeps what it, or the model behind it, raised."""

    def __init__(self, run: Path) -> None:
        from weft.data import Conversation
        from weft.train.runs.served import load_served

        self.faults: list[BaseException] = []
        self._run = load_served(run)
        self._kind = Conversation.record_type
        self.app = self.made()

    def made(self) -> Any:
        """A new application; one belongs to one loop of events."""
        from weft.eval.serving.endpoint import make_app

        return make_app(self._answer, {"vqa": 20, "talk": 20}, talks=["talk"])

    def _answer(self, questions: Sequence[Any]) -> list[str]:
        try:
            return self._answered(questions)
        except Exception as error:
            if not is_ours(error):
                self.faults.append(error)
            raise

    def _answered(self, questions: Sequence[Any]) -> list[str]:
        from weft.data import MediaRef
        from weft.train.runs.requests import RECORDS

        talks = [each for each in questions if each.task == "talk"]
        for each in talks:
            shown = tuple(MediaRef.from_bytes(image, "image") for image in each.images)
            for ref in RECORDS[self._kind]("0", each.text, shown).media_refs():
                ref.image()
        asked = iter(self._run.answer([each for each in questions if each.task != "talk"]))
        return ["x" if each.task == "talk" else next(asked) for each in questions]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as the application does."""
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if not type(error).__module__.startswith(
                "h11."
            ):  # the server's own, of a connection that it has refused
                self.faults.append(error)
            raise

    def check(self) -> None:
        """Raise what was kept."""
        faults, self.faults = self.faults, []
        if faults:
            raise faults[0]


@cache
def watched(recipe: str) -> Watched:
    """A served run of a recipe."""
    return Watched(_finished(recipe))


@cache
def _finished(recipe: str) -> Path:
    folder = new_place("served")
    trees.runs(recipe)["run"].write(folder, "other", b"")
    return folder


def ask_app(data: bytes, app: Watched) -> None:
    """A body of a request, given to the application itself.

    Args:
        data: Lines of headers, an empty line, and the body.
        app: The application.
    """
    head, _, body = data.partition(b"\n\n")
    headers = [
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(b":") for line in head.split(b"\n"))
        if name.strip()
    ]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        if statuses == [500]:
            raise RuntimeError(f"the server broke: {message.get('body')!r}")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def run() -> None:
        app.app = app.made()
        async with app.app.state.batching.running():
            await app(scope, receive, send)

    with suppress(Exception):  # kept by the application
        asyncio.run(run())
    app.check()


@cache
def serving(recipe: str) -> Watched:
    """The application behind the port, which no other target changes."""
    return Watched(_finished(recipe))


@cache
def port(recipe: str) -> int:
    """The port of a server that runs until the process ends."""
    import atexit

    from weft.eval.testing.served import served

    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(served(serving(recipe)))


def ask_port(data: bytes, recipe: str) -> None:
    """Bytes on the socket of a server, which must be well after them."""
    number = port(recipe)
    for sent, wanted in (
        (data, None),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
    ):
        with socket.create_connection(("127.0.0.1", number), timeout=10) as line:
            with suppress(OSError):  # a server may hang up on what it refuses
                line.sendall(sent)
                line.shutdown(socket.SHUT_WR)
            said = b"".join(_received(line))
        assert wanted is None or wanted in said.partition(b"\r\n")[0], said
    serving(recipe).check()


def _received(line: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while part := line.recv(65536):
            yield part


def requests(picture: bytes) -> list[bytes]:
    """Requests that are answered: one question, and a conversation."""
    shown = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(picture).decode()}"},
    }
    said = {"type": "text", "text": "what is it?"}
    asked = [
        {"model": "vqa", "messages": [{"role": "user", "content": [shown, said]}], "temperature": 0},
        {
            "model": "talk",
            "max_tokens": 20,
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": [shown, said]},
                {"role": "assistant", "content": "a cat"},
                {"role": "user", "content": "really?"},
            ],
        },
        {
            "model": "vqa",
            "messages": [{"role": "user", "content": [{**shown, "image_url": "http://h/a.png"}]}],
        },
    ]
    return [b"Content-Type: application/json\n\n" + json.dumps(words).encode() for words in asked]


def raw_requests() -> list[bytes]:
    """Requests as they are on the wire."""
    body = b'{"model": "vqa", "messages": [{"role": "user", "content": "x"}]}'
    front = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return [
        front + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        front + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /openapi.json HTTP/1.0\r\n\r\n",
    ]
