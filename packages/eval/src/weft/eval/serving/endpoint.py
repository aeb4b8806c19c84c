"""Many tasks behind one address: OpenAI's `/v1/chat/completions`, in which `model` chooses the task."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Collection, Mapping
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

    def __init__(self, message: str, status: int = 400, kind: str = "invalid_request_error") -> None:
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
        late = f"An answer must come within {limits.seconds:g} seconds, but did not. Ask again later."
        raise RequestError(late, 504, "timeout") from None
    except BusyError as error:
        raise RequestError(str(error), 503, "overloaded") from None
    except ServingError as error:
        raise RequestError(str(error)) from None
    except Exception as error:
        # Errors of weft name what to fix; others are the server's own, and their text may tell of its insides.
        if isinstance(error, EvalError) or type(error).__module__.startswith("weft."):
            raise RequestError(str(error)) from None
        failed = f"The model could not answer ({type(error).__name__}). Its log says why."
        raise RequestError(failed, 500, "server_error") from error
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
                        f"A request must have at most {limits.body:,} bytes, but has more. Send smaller images.",
                        413,
                    )
    except TimeoutError:
        late = f"A request must come within {limits.upload:g} seconds, but did not. Send it again."
        raise RequestError(late, 408, "timeout") from None
    return bytes(found)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        words = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"A request must be JSON, but is not: {str(error)[:100]}.") from None
    if not isinstance(words, dict):
        raise RequestError(f"A request must be a JSON object, but is a {type(words).__name__}.")
    return words


def _task(words: Mapping[str, Any], tasks: Mapping[str, int]) -> str:
    task = words.get("model")
    if not isinstance(task, str) or task not in tasks:
        named = task[:_LONGEST] if isinstance(task, str) else _shown(task)
        raise RequestError(unknown("`model`", named, tasks), 404)
    for name, plain in _PLAIN.items():
        if name in words and words[name] not in plain:
            raise RequestError(
                f"`{name}` must be left out, because a run answers by its own rules, but is {_shown(words[name])}.",
            )
    for name in _LENGTHS:
        most = words.get(name)
        if most is not None and (not isinstance(most, int) or most < tasks[task]):
            raise RequestError(
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
            "`messages` must hold one message of the user, unless a task was trained on conversations: the run puts "
            "its own words around it. Send one.",
        )
    told = [_parts(message, talks) for message in messages]
    images = [said for parts in told for kind, said in parts if kind == "image"]
    texts = [said for parts in told for kind, said in parts if kind == "text"]
    if not is_writable(texts):
        raise RequestError("A text must be Unicode, but holds half of a surrogate pair. Encode it again.")
    if (length := sum(map(len, texts))) > limits.text:
        raise RequestError(f"A text must have at most {limits.text:,} characters, but has {length:,}.", 413)
    if len(images) > limits.images:
        raise RequestError(
            f"A request must show at most {limits.images} images, but shows {len(images)}.", 413
        )
    if not talks:
        return "\n".join(texts), images
    plain = [
        [{"type": kind} if kind == "image" else {"type": kind, "text": said} for kind, said in parts]
        for parts in told
    ]
    talk = [{"role": one["role"], "content": parts} for one, parts in zip(messages, plain, strict=True)]
    return json.dumps(talk, ensure_ascii=False), images


def _parts(message: Mapping[str, Any], talks: bool) -> list[tuple[str, str]]:
    """Parts of a message: `text` with a text, or `image` with an address."""
    role, content = message.get("role"), message.get("content")
    if role != "user" and (not talks or role not in ("system", "assistant")):
        raise RequestError(
            f"`role` must be 'user', but is {_shown(role)}. The run says itself what a system would."
        )
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise RequestError("`content` must be a text, or a list of parts of type text and image_url.")
    return list(map(_part, parts))


def _part(part: Mapping[str, Any]) -> tuple[str, str]:
    if part.get("type") == "image_url":
        shown = part.get("image_url")
        address = shown.get("url") if isinstance(shown, dict) else shown
        if not isinstance(address, str):
            raise RequestError(
                '`image_url` must be {"url": "data:image/png;base64,…"}, but has no such text.'
            )
        return "image", address
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str):
        raise RequestError(f"A part must be of type text or image_url, but is {_shown(part)}.")
    return "text", text


def _shown(value: object) -> str:
    """A value of a request as messages repeat it: its beginning, however deep it is."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
