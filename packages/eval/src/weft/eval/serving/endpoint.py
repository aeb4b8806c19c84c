"""Many tasks behind one address: OpenAI's `/v1/chat/completions`, in which `model` chooses the task."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from weft.core.errors import unknown
from weft.data.sources.texts import is_writable
from weft.eval.errors import EvalError, ServingError
from weft.eval.serving.batching import Answer, Batching, BusyError, Question
from weft.eval.serving.pictures import PictureLimits, picture_of

# What would change the answers of a run, and the values that ask for what it does anyway.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "temperature": (0, None),
    "top_p": (1, None),
    "n": (1, None),
    "stream": (False, None),
    "stop": (None, []),
    "tools": (None, []),
    "response_format": (None, {"type": "text"}),
}
_LENGTHS = ("max_tokens", "max_completion_tokens")
_LONGEST = 80  # characters of a request that a message repeats


@dataclass(frozen=True)
class ServingLimits:
    """Limits of requests, and how they are batched.

    Args:
        body: Maximum size of a request, in bytes.
        images: Maximum number of images in a request.
        picture: Limits of each image.
        text: Maximum length of the text of a request, in characters.
        upload: Seconds that a client has to send a request.
        seconds: Seconds until a request times out.
        batch_size: Maximum number of questions in a batch.
        wait: Seconds to wait for a batch to fill.
        waiting: Maximum number of questions in the queue.
    """

    body: int = 32 * 2**20
    images: int = 8
    picture: PictureLimits = field(default_factory=PictureLimits)
    text: int = 100_000
    upload: float = 30.0
    seconds: float = 120.0
    batch_size: int = 16
    wait: float = 0.01
    waiting: int = 256


class RequestError(Exception):
    """A request that is refused, with the status of its answer."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def make_app(
    answer: Answer,
    tasks: Mapping[str, int],
    limits: ServingLimits | None = None,
    talks: Collection[str] = (),
    names: Collection[str] = (),
) -> FastAPI:
    """The application that serves a model.

    Args:
        answer: Answers questions of any mixture of tasks; called in one thread. An `EvalError` or another error with
            a message is sent to the client.
        tasks: Name of each task to the maximum length of its answers, in tokens.
        limits: Limits of requests.
        talks: The tasks that take several messages. The text of such a question is their list in JSON, with a part of
            type image for each of its images.
        names: Hosts that a request may address. Any by default. Where a server is for one machine alone, its names
            keep pages of the web from asking it through a name of their own that leads to it.
    """
    limits = limits or ServingLimits()
    batching = Batching(answer, size=limits.batch_size, wait=limits.wait, waiting=limits.waiting)
    app = FastAPI(title="weft", lifespan=lambda app: batching.running(), docs_url=None, redoc_url=None)
    app.state.batching = batching
    if names:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "weft"} for name in tasks]
        return {"object": "list", "data": listed}

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(request: Request) -> Response:
        try:
            return JSONResponse(await _completed(request, batching, tasks, limits, talks))
        except ClientDisconnect:
            return _Silence()
        except RequestError as error:
            told = {"message": str(error), "type": error.kind, "code": error.status}
            headers = {"Retry-After": "1"} if error.status == 503 else {}
            # What has not come yet of a refused request is never read.
            if error.status in (408, 413):
                headers["Connection"] = "close"
            return JSONResponse({"error": told}, error.status, headers)

    return app


class _Silence(Response):
    """No answer: nobody is there, or the server has refused what came."""

    async def __call__(self, *channel: Any) -> None:
        """Send nothing."""


async def _completed(
    request: Request,
    batching: Batching,
    tasks: Mapping[str, int],
    limits: ServingLimits,
    talks: Collection[str],
) -> dict[str, Any]:
    words = _parsed(await _body(request, limits))
    task = _task(words, tasks)
    text, addresses = _said(words, limits, task in talks)
    try:
        async with asyncio.timeout(limits.seconds):
            images = [await asyncio.to_thread(picture_of, one, limits.picture) for one in addresses]
            said = await batching.ask(Question(task, text, tuple(images)))
    except TimeoutError:
        raise RequestError(
            504,
            f"An answer must come within {limits.seconds:g} seconds, but did not. Ask again later.",
            "timeout",
        ) from None
    except BusyError as error:
        raise RequestError(503, str(error), "overloaded") from None
    except ServingError as error:
        raise RequestError(400, str(error)) from None
    except Exception as error:
        # Errors of weft name what to fix; others are the server's own, and their text may tell of its insides.
        if isinstance(error, EvalError) or type(error).__module__.startswith("weft."):
            raise RequestError(400, str(error)) from None
        raise RequestError(
            500, f"The model could not answer ({type(error).__name__}). Its log says why.", "server_error"
        ) from error
    message = {"role": "assistant", "content": said}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": task,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


async def _body(request: Request, limits: ServingLimits) -> bytes:
    found = bytearray()
    try:
        async with asyncio.timeout(limits.upload):
            async for chunk in request.stream():
                found += chunk
                if len(found) > limits.body:
                    raise RequestError(
                        413,
                        f"A request must have at most {limits.body:,} bytes, but has more. Send smaller images.",
                    )
    except TimeoutError:
        raise RequestError(
            408,
            f"A request must come within {limits.upload:g} seconds, but did not. Send it again.",
            "timeout",
        ) from None
    return bytes(found)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        words = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"A request must be JSON, but is not: {str(error)[:100]}.") from None
    if not isinstance(words, dict):
        raise RequestError(400, f"A request must be a JSON object, but is a {type(words).__name__}.")
    return words


def _task(words: Mapping[str, Any], tasks: Mapping[str, int]) -> str:
    task = words.get("model")
    if not isinstance(task, str) or task not in tasks:
        named = task[:_LONGEST] if isinstance(task, str) else _shown(task)
        raise RequestError(404, unknown("`model`", named, tasks))
    for name, plain in _PLAIN.items():
        if name in words and words[name] not in plain:
            raise RequestError(
                400,
                f"`{name}` must be left out, because a run answers by its own rules, but is {_shown(words[name])}.",
            )
    for name in _LENGTHS:
        most = words.get(name)
        if most is not None and (not isinstance(most, int) or most < tasks[task]):
            raise RequestError(
                400,
                f"`{name}` must be at least {tasks[task]}, the length of answers of {task!r}, or be left out, but is "
                f"{_shown(most)}.",
            )
    return task


def _said(words: Mapping[str, Any], limits: ServingLimits, talks: bool) -> tuple[str, list[str]]:
    """Text and addresses of images of the message of a request, or of all where the task takes several."""
    messages = words.get("messages")
    if (
        not isinstance(messages, list)
        or not (messages if talks else len(messages) == 1)
        or not all(isinstance(message, dict) for message in messages)
    ):
        raise RequestError(
            400,
            "`messages` must hold one message of the user, unless a task was trained on conversations: the run puts "
            "its own words around it. Send one.",
        )
    told = [_parts(message, talks) for message in messages]
    images = [_address(part) for parts in told for part in parts if part.get("type") == "image_url"]
    texts = [_text(part) for parts in told for part in parts if part.get("type") != "image_url"]
    if not is_writable(texts):
        raise RequestError(
            400, "A text must be Unicode, but holds half of a surrogate pair. Encode it again."
        )
    if (length := sum(map(len, texts))) > limits.text:
        raise RequestError(413, f"A text must have at most {limits.text:,} characters, but has {length:,}.")
    if len(images) > limits.images:
        raise RequestError(
            413, f"A request must show at most {limits.images} images, but shows {len(images)}."
        )
    return (_as_json(messages, told) if talks else "\n".join(texts)), images


def _as_json(messages: Sequence[Mapping[str, Any]], told: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """The messages of a conversation, each of its images a part without an address."""
    said = []
    for message, parts in zip(messages, told, strict=True):
        content = [
            {"type": "image"} if part.get("type") == "image_url" else {"type": "text", "text": _text(part)}
            for part in parts
        ]
        said.append({"role": message["role"], "content": content})
    return json.dumps(said, ensure_ascii=False)


def _parts(message: Mapping[str, Any], talks: bool) -> list[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role != "user" and (not talks or role not in ("system", "assistant")):
        raise RequestError(
            400, f"`role` must be 'user', but is {_shown(role)}. The run says itself what a system would."
        )
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise RequestError(400, "`content` must be a text, or a list of parts of type text and image_url.")
    return parts


def _text(part: Mapping[str, Any]) -> str:
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str):
        raise RequestError(400, f"A part must be of type text or image_url, but is {_shown(part)}.")
    return text


def _shown(value: object) -> str:
    """A value of a request as messages repeat it: its beginning, however deep it is."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _address(part: Mapping[str, Any]) -> str:
    shown = part.get("image_url")
    address = shown.get("url") if isinstance(shown, dict) else shown
    if not isinstance(address, str):
        raise RequestError(
            400, '`image_url` must be {"url": "data:image/png;base64,…"}, but has no such text.'
        )
    return address
