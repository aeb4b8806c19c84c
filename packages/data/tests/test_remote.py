"""Data behind HTTP: read in place, and errors that never show what a signed address holds."""

import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from weft.data import load_dataset
from weft.data.errors import MissingFileError, StoreAccessError
from weft.data.sources.opening import open_store
from weft.data.testing import image_bytes, zip_bytes

pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp")

ARCHIVE = zip_bytes(
    {f"train/{name}/{k}.png": image_bytes((k, 0, 0)) for name in ("cat", "dog") for k in range(3)}
)
SECRET = "hunter2secret"


class Handler(BaseHTTPRequestHandler):
    """Serves one archive, in ranges as stores do; forbids one address and knows no other."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        path = self.path.split("?")[0]
        if path != "/photos.zip":
            self.send_response(403 if path.startswith("/forbidden") else 404)
            self.end_headers()
            return
        first, last = 0, len(ARCHIVE) - 1
        wanted = self.headers.get("Range")
        if wanted:
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop or last), last)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(ARCHIVE)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if body:
            self.wfile.write(ARCHIVE[first : last + 1])

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_archive_behind_http_is_read_in_place(address):
    records = load_dataset("image_folder", f"{address}/photos.zip", "train")
    assert [record.label for record in records] == [0, 0, 0, 1, 1, 1]
    assert records[2].image.image().getpixel((0, 0)) == (2, 0, 0)


def shown(error):
    """Everything that a user would see: the message and the whole chain of causes."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (f"forbidden.zip?X-Amz-Signature={SECRET}", StoreAccessError),
        (f"forbidden?sig={SECRET}", StoreAccessError),
        (f"none.zip?token={SECRET}", MissingFileError),
    ],
    ids=["forbidden archive", "forbidden folder", "missing archive"],
)
def test_a_refused_or_missing_address_is_named_without_its_secret(address, path, error):
    with pytest.raises(error) as caught:
        open_store(f"{address}/{path}").read("a.png")
    text = shown(caught.value)
    assert SECRET not in text
    assert "127.0.0.1" in text


def test_a_server_that_is_not_there_is_named_without_password():
    with pytest.raises(StoreAccessError, match=r"must be readable, but .*\. Check the address") as caught:
        open_store(f"http://me:{SECRET}@127.0.0.1:9/data.zip").read("a.png")
    assert SECRET not in shown(caught.value)


def test_options_never_show(address):
    with pytest.raises(StoreAccessError) as caught:
        open_store(f"{address}/forbidden.zip", {"headers": {"Authorization": f"Bearer {SECRET}"}}).read("a")
    assert SECRET not in shown(caught.value)
