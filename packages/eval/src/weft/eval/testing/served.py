"""An application behind a port of loopback, for tests."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve an ASGI application inside the `with` block.

    Args:
        app: The application.

    Yields:
        Its port.
    """
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server ended"
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


def asked(port: int, body: dict[str, Any] | bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer to a request for a chat completion.

    Args:
        port: Port on loopback.
        body: What is sent.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", data, {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def chat(task: str, text: str, *images: str, **more: Any) -> dict[str, Any]:
    """A request of one message.

    Args:
        task: What `model` names.
        text: Its text.
        *images: Addresses of its images.
        **more: Further keys.
    """
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    content = [*shown, {"type": "text", "text": text}]
    return {"model": task, "messages": [{"role": "user", "content": content}], **more}
