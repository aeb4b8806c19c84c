"""Locks between processes: one holds a name, and the next learns at once who it is, since when, and on which machine.

The operating system frees a lock when its process ends, however it ends, so that no lock outlives a crash on the same
machine. Where machines share a folder without sharing locks, the holder touches the file: one that has not been touched
for `STALE` seconds is nobody's.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from weft.data.errors import InUseError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

HEARTBEAT = 20.0
"""Seconds between two touches of a lock that is held."""
STALE = 120.0
"""Seconds without a touch after which the lock of another machine counts as left behind."""
_POLL = 0.05
_PATIENCE = 4
_handles: set[int] = set()


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process on a machine, since so many seconds after 1970."""

    host: str
    pid: int
    since: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, for {_told(time.time() - self.since)}"


@contextmanager
def held(path: str | os.PathLike[str], what: str, *, advice: str = "", wait: float = 0.0) -> Iterator[None]:
    """Hold a lock inside the `with` block.

    Args:
        path: File of the lock, beside what it guards; made, and removed at the end.
        what: What it guards, as the message's subject.
        advice: What the user can do instead of waiting, as an end of the message.
        wait: Seconds to wait for another holder; 0 asks once.

    Raises:
        InUseError: If another process, or another thread of this one, holds it.
        OSError: If the file cannot be made.
    """
    place = Path(os.path.realpath(path))
    end = time.monotonic() + wait
    while isinstance(found := _attempt(place), Holder):
        if time.monotonic() >= end:
            more = f", {advice}" if advice else ""
            raise InUseError(
                f"{what} must be used by one process at a time, but is in use by {found}. Wait until that has "
                f"ended{more}; if its machine is gone, remove {place}."
            )
        time.sleep(_POLL)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(place, stop), name="weft-lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        _release(place, found)


def holder_of(path: str | os.PathLike[str]) -> Holder | None:
    """Who is said to hold a lock by its file; None where there is no such file, or it says nothing."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return _parsed(text)


def _attempt(place: Path) -> int | Holder:
    """The open file of a lock that was taken, or who holds it."""
    me = Holder(socket.gethostname(), os.getpid(), time.time())
    while True:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        taken = _lock(handle)
        found = _parsed(_content(handle))
        for _ in range(_PATIENCE if taken is False and found is None else 0):
            time.sleep(_POLL)  # it was taken a moment ago, and its holder has not written its name yet
            found = found or _parsed(_content(handle))
        if taken is False or (found is not None and _lives(found, handle, sure=taken is True)):
            os.close(handle)
            return found or Holder(me.host, 0, me.since)
        if not _is_at(handle, place):
            os.close(handle)  # the holder before removed the file while it was opened here
            continue
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(asdict(me)).encode())
        _handles.add(handle)
        return handle


def _release(place: Path, handle: int) -> None:
    if handle not in _handles:
        return  # in a process that was forked inside the block
    if sys.platform == "win32":
        os.ftruncate(handle, 0)
    elif _is_at(handle, place):
        place.unlink()
    _handles.remove(handle)
    os.close(handle)


def _forget() -> None:
    """Close the locks of the parent in a forked process, which would else hold them after the parent's death."""
    while _handles:
        os.close(_handles.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _lock(handle: int) -> bool | None:
    """Whether the system gave the lock; None where the file system knows none."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, 1 << 30, os.SEEK_SET)  # far behind the text, which others read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _lives(found: Holder, handle: int, *, sure: bool) -> bool:
    """Whether the one who is written in a lock may still hold it though the system gave the lock to us.

    `sure` is whether the system's lock speaks for all processes of this machine.
    """
    if found.host == socket.gethostname():
        return not sure and _runs(found.pid)
    return time.time() - os.fstat(handle).st_mtime < STALE


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _beat(place: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(place)


def _is_at(handle: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(place))
    except FileNotFoundError:
        return False


def _content(handle: int) -> str:
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, 4096).decode(errors="replace")


def _parsed(text: str) -> Holder | None:
    try:
        values = json.loads(text)
        return Holder(str(values["host"]), int(values["pid"]), float(values["since"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _told(seconds: float) -> str:
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{max(0, round(seconds))} seconds"
