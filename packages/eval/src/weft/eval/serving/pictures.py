"""Pictures of a request: sent along as base64, or fetched from hosts that are allowed by name. None is by default."""

from __future__ import annotations

import base64
import binascii
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from weft.data.errors import CorruptMediaError
from weft.data.media.images import open_image
from weft.eval.errors import ServingError

HOSTS = "WEFT_IMAGE_HOSTS"
_CHUNK = 2**16


@dataclass(frozen=True)
class PictureLimits:
    """Limits of the pictures of a request.

    Args:
        bytes: Maximum size of a file, in bytes.
        pixels: Maximum number of pixels.
        hosts: Hosts that pictures are fetched from, as `name` or `name:port`.
        seconds: Seconds until a download times out.
    """

    bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    hosts: Sequence[str] = ()
    seconds: float = 10.0


def hosts_of_environment() -> tuple[str, ...]:
    """The hosts that `WEFT_IMAGE_HOSTS` allows, comma-separated; none where it is not set."""
    return tuple(host.strip() for host in os.environ.get(HOSTS, "").split(",") if host.strip())


def picture_of(address: str, limits: PictureLimits) -> bytes:
    """The encoded picture that a request shows.

    Args:
        address: `data:image/png;base64,…`, or a URL of an allowed host.
        limits: What it may be.

    Raises:
        ServingError: If it breaks a limit, is no picture, or comes from elsewhere.
    """
    data = _of_data(address, limits) if address.startswith("data:") else _fetched(address, limits)
    check_picture(data, limits)
    return data


def check_picture(data: bytes, limits: PictureLimits) -> None:
    """Refuse a file that is no picture, or too large a one, by its header alone.

    Raises:
        ServingError: With the reason.
    """
    if len(data) > limits.bytes:
        raise _too_large(limits)
    try:
        with open_image(data) as image:
            width, height = image.size
    except CorruptMediaError as error:
        raise ServingError(
            f"An image must be a picture file such as PNG or JPEG, but is not: {str(error)[:200]}"
        ) from None
    if width * height > limits.pixels:
        raise ServingError(
            f"An image must have at most {limits.pixels:,} pixels, but has {width} x {height}. Shrink it."
        )


def _of_data(address: str, limits: PictureLimits) -> bytes:
    head, comma, text = address.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ServingError(
            f"A data URL must read data:image/TYPE;base64,…, but begins with {head[:40]!r}. Encode the picture in "
            "base64."
        )
    if len(text) * 3 // 4 > limits.bytes + 2:
        raise _too_large(limits)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServingError(f"An image must be whole base64, but is not: {error}. Encode it again.") from None


def _fetched(address: str, limits: PictureLimits) -> bytes:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise ServingError(
            f"An image must be a data URL or an http(s) address without a password, but is {address[:60]!r}. Send it "
            "as data:image/png;base64,…"
        )
    if host not in limits.hosts and f"{host}:{port}" not in limits.hosts:
        raise ServingError(
            f"An image may be fetched from hosts that are allowed by name alone, and {host[:60]!r} is none. Send it as "
            f"data:image/png;base64,…, or have the server allow the host ({HOSTS}, or --image-host)."
        )
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=limits.seconds) as answer:
            return _read(answer, limits)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServingError(
            f"An image must be reachable by its address, but {host} says: {str(error)[:100]}. Check the address."
        ) from None


def _read(answer: Any, limits: PictureLimits) -> bytes:
    end, found = monotonic() + limits.seconds, bytearray()
    while chunk := answer.read1(_CHUNK):
        found += chunk
        if len(found) > limits.bytes:
            raise _too_large(limits)
        if monotonic() > end:
            raise TimeoutError(f"it took more than {limits.seconds:g} seconds")
    return bytes(found)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A host that is allowed speaks for itself alone."""

    def redirect_request(self, *given: Any) -> None:
        return None


def _too_large(limits: PictureLimits) -> ServingError:
    return ServingError(
        f"An image must have at most {limits.bytes / 2**20:g} MiB, but has more. Send a smaller one."
    )
