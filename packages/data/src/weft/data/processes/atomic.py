"""Write a file or a folder at once or not at all: under a temporary name first, renamed when whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.data.errors import InvalidArgumentError


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the whole new one.

    Args:
        path: Target; its folder is made if absent.
        data: Content.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text to `path` as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends well, and vanishes otherwise.

    Args:
        path: Target; must not exist or be empty.

    Raises:
        InvalidArgumentError: If the target already holds something.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidArgumentError(
            f"`path` must not exist or be an empty folder, but {target} holds something. "
            "Choose another, or remove it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        if target.exists():
            target.rmdir()
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
