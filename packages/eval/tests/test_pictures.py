"""Pictures of requests: what is too large, no picture, or of a host that nobody allowed is refused in clear words."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from weft.eval.errors import ServingError
from weft.eval.serving.pictures import PictureLimits, hosts_of_environment, picture_of


def png(width: int = 20, height: int = 10) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def huge_header() -> bytes:
    """A PNG of a few bytes that says it has four billion pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2**16, 2**16, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def address(data: bytes) -> str:
    return f"data:image/png;base64,{b64encode(data).decode()}"


class Host(BaseHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/picture.png")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        try:
            if self.path == "/slow":
                for _ in range(50):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
            self.wfile.write(png() if self.path == "/picture.png" else b"x" * 5000)
        except OSError:
            pass  # the client had enough


@pytest.fixture
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_picture_comes_as_base64_or_from_a_host_that_is_allowed(host: str) -> None:
    assert picture_of(address(png()), PictureLimits()) == png()
    assert picture_of(f"http://{host}/picture.png", PictureLimits(hosts=("127.0.0.1",))) == png()
    assert picture_of(f"http://{host}/picture.png", PictureLimits(hosts=(host,))) == png()


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (address(b"no picture"), "must be a picture file such as PNG or JPEG"),
        (address(huge_header()), r"must be a picture|at most 1,000 pixels, but has 65536 x 65536"),
        (address(png(50, 50)), "at most 1,000 pixels, but has 50 x 50"),
        (address(b"x" * 5000), "at most 0.00390625 MiB"),
        ("data:image/png,xx", r"must read data:image/TYPE;base64"),
        ("data:image/png;base64,@@", "must be whole base64"),
        ("file:///etc/passwd", "must be a data URL or an http"),
        ("http://me:secret@127.0.0.1/x.png", "without a password"),
        ("http://[::1", "must be a data URL or an http"),
        (
            "http://169.254.169.254/latest",
            "hosts that are allowed by name alone, and '169.254.169.254' is none",
        ),
        ("http://HOST/away", "must be reachable by its address"),
        ("http://HOST/large", "at most 0.00390625 MiB"),
        ("http://HOST/slow", "must be reachable by its address, but 127.0.0.1 says: .*more than 0.3 seconds"),
    ],
    ids=[
        "no picture",
        "header",
        "pixels",
        "bytes",
        "not encoded",
        "no base64",
        "file",
        "password",
        "no url",
        "metadata host",
        "redirect",
        "large answer",
        "slow answer",
    ],
)
def test_what_is_no_picture_is_refused(host: str, shown: str, message: str) -> None:
    limits = PictureLimits(bytes=4096, pixels=1000, hosts=("127.0.0.1",), seconds=0.3)
    with pytest.raises(ServingError, match=message):
        picture_of(shown.replace("HOST", host), limits)


def test_no_host_is_allowed_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEFT_IMAGE_HOSTS", raising=False)
    assert hosts_of_environment() == ()
    monkeypatch.setenv("WEFT_IMAGE_HOSTS", "a.org, b.org:80,")
    assert hosts_of_environment() == ("a.org", "b.org:80")
