"""The local record of one run: an append-only file of events and the files they name."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from weft.data.processes.locks import held
from weft.data.sources.safe_paths import leads_to
from weft.eval.errors import TrackingError

_EVENTS = "events.jsonl"
_SENT = "sent.json"
_FILES = "files"
SPOOL_TAG = "weft.spool"


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        content: Its fields; `sequence`, `kind` and `time` (milliseconds since 1970) are always there.
        end: Where the next event begins in the file, in bytes.
    """

    content: dict[str, Any]
    end: int

    @property
    def kind(self) -> str:
        """What happened."""
        return str(self.content["kind"])

    def __getitem__(self, name: str) -> Any:
        return self.content[name]


class Spool:
    """Events of one run, numbered from 0, each on the disk before anything is sent.

    Args:
        folder: The folder of this run's spool.

    Raises:
        TrackingError: The folder holds no spool.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / _EVENTS).is_file():
            raise TrackingError(
                f"`spool` must be a folder with {_EVENTS}, but {str(folder)!r} has none. "
                "Pass the folder that the run named when its upload failed."
            )
        self._lock = threading.Lock()
        self._next = sum(1 for _ in self.events())

    @classmethod
    def create(cls, parent: Path, name: str) -> Spool:
        """Make an empty spool in a new folder under `parent`."""
        folder = parent / f"{name.replace('/', '_')}-{uuid.uuid4().hex[:12]}"
        (folder / _FILES).mkdir(parents=True)
        (folder / _EVENTS).touch()
        return cls(folder)

    def alone(self) -> AbstractContextManager[None]:
        """Let no other process send this spool inside the `with` block.

        Raises:
            InUseError: Another process is sending it, such as the run itself.
        """
        return held(self.folder.with_name(f".{self.folder.name}.lock"), f"The spool {self.folder}")

    def check(self) -> None:
        """Refuse a spool with events that no run writes, or with files that are elsewhere.

        Raises:
            TrackingError: An event is malformed, or a path or a link in the spool leads out of it.
        """
        for number, event in enumerate(self.events()):
            fault = _fault(event.content, first=number == 0)
            if fault is not None:
                raise TrackingError(
                    f"Event {number} of the spool {self.folder} must be one that a run writes, but {fault}. Do not "
                    "send it."
                )
            if "files" in event.content:
                self._check_files(event)

    def _check_files(self, event: Event) -> None:
        name, destination = str(event["files"]), event.content.get("destination") or "."
        path = PurePosixPath(destination)
        if Path(name).name != name or name == ".." or path.is_absolute() or ".." in path.parts:
            raise TrackingError(
                f"Files of a spool must lie in it, but {self.folder} names {name!r} for {destination!r}. Do not "
                "send it."
            )
        top = self.files(event)
        inside = (self.folder / _FILES).resolve()
        for place in (top, *top.rglob("*")):
            target = leads_to(place)
            if target is None or not target.is_relative_to(inside):
                raise TrackingError(
                    f"Files of a spool must lie in it, but {str(place)!r} leads to {target or 'no place'}. Do not "
                    "send it."
                )

    def append(self, kind: str, **content: Any) -> None:
        """Write one event.

        Args:
            kind: What happened: `start`, `metrics`, `tags`, `artifact`, `dataset`, `model` or `end`.
            **content: Its JSON-able fields.

        Raises:
            OSError: The event cannot be written, as on a full disk; the events before it stay readable.
        """
        with self._lock:
            event = {"sequence": self._next, "kind": kind, "time": time.time_ns() // 1_000_000, **content}
            line = (json.dumps(event, ensure_ascii=False) + "\n").encode()
            with (self.folder / _EVENTS).open("ab", buffering=0) as file:
                before = file.tell()
                try:
                    written = file.write(line)
                    if written < len(line):
                        # The system writes what it has room for, and says why only when asked for the rest.
                        file.write(line[written:])
                except OSError:
                    file.truncate(before)
                    raise
            self._next += 1

    def add_files(self, kind: str, source: Path, **content: Any) -> None:
        """Copy a file or a folder, as it is now, into the spool for an event of a kind with further fields.

        Raises:
            TrackingError: There is no such file or folder.
        """
        if not source.exists():
            raise TrackingError(
                f"`source` must exist, but {str(source)!r} does not. Write it before logging it."
            )
        name = uuid.uuid4().hex
        target = self.folder / _FILES / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.mkdir()
            shutil.copy2(source, target / source.name)
        self.append(kind, files=name, **content)

    def add_text(self, text: str, path: str) -> None:
        """Note a text that becomes the artifact `path` (with forward slashes)."""
        name = uuid.uuid4().hex
        folder, _, file_name = path.rpartition("/")
        target = self.folder / _FILES / name
        target.mkdir()
        (target / file_name).write_text(text, encoding="utf-8")
        self.append("artifact", files=name, destination=folder or None)

    def events(self, offset: int = 0) -> Iterator[Event]:
        """Events in order, from the `end` of one that is known already; a half-written last line is left out."""
        with (self.folder / _EVENTS).open("rb") as file:
            file.seek(offset)
            for line in file:
                if line.endswith(b"\n"):
                    offset += len(line)
                    yield Event(self._content(line), offset)

    def _content(self, line: bytes) -> dict[str, Any]:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            content = error  # told below
        if not isinstance(content, dict) or not {"kind", "time"} <= content.keys():
            raise TrackingError(
                f"{self.folder / _EVENTS} must hold one JSON object a line, with kind and time, but holds "
                f"{line[:60]!r}. It was not written by a run, or is damaged."
            )
        return content

    def files(self, event: Event) -> Path:
        """The folder with the files of an event."""
        return self.folder / _FILES / str(event["files"])

    def sent(self) -> tuple[int, str | None]:
        """Up to which place in the file the store holds everything, and the id of the run there."""
        path = self.folder / _SENT
        if not path.is_file():
            return 0, None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return int(data["offset"]), str(data["run_id"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrackingError(
                f"{path} must say what the store has, as a run writes it, but does not read: {error}. Remove it to "
                "send everything again."
            ) from None

    def acknowledge(self, offset: int, run_id: str) -> None:
        """Note that the store holds everything before the given place in the file."""
        temporary = self.folder / f"{_SENT}.part"
        temporary.write_text(json.dumps({"offset": offset, "run_id": run_id}), encoding="utf-8")
        temporary.replace(self.folder / _SENT)

    def flush(self) -> None:
        """Force the events onto the disk, as before a checkpoint."""
        with (self.folder / _EVENTS).open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete the spool after everything in it has been sent."""
        shutil.rmtree(self.folder)


_OPTIONAL = (str, type(None))
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "start": {
        "uri": str,
        "experiment": str,
        "name": str,
        "run_id": _OPTIONAL,
        "params": dict,
        "tags": dict,
        "parent_spool": _OPTIONAL,
    },
    "metrics": {"step": int, "values": dict},
    "tags": {"tags": dict},
    "artifact": {"files": str, "destination": _OPTIONAL},
    "dataset": {"name": str, "digest": str, "split": str, "source": dict, "profile": dict},
    "model": {
        "files": str,
        "name": str,
        "params": dict,
        "values": dict,
        "datasets": dict,
        "register": _OPTIONAL,
    },
    "end": {"status": str},
}


def _fault(content: dict[str, Any], *, first: bool) -> str | None:
    """What is wrong with an event, or None."""
    kind = content["kind"]
    if not isinstance(kind, str) or kind not in _FIELDS:
        return f"its kind is {kind!r}"
    if first != (kind == "start"):
        return f"an event of kind {kind!r} stands there"
    fields = {**_FIELDS[kind], "time": int}
    absent = [name for name in fields if name not in content]
    if absent:
        return f"it has no {absent[0]!r}"
    wrong = [name for name, types in fields.items() if not isinstance(content[name], types)]
    if wrong:
        return f"{wrong[0]!r} is {content[wrong[0]]!r}"
    if kind in ("metrics", "model") and not all(
        isinstance(value, int | float) for value in content["values"].values()
    ):
        return "a metric is not a number"
    if kind == "start" and SPOOL_TAG not in content["tags"]:
        return f"it has no tag {SPOOL_TAG!r}"
    return None
