"""The local record of one run: an append-only file of events and the files they name."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.eval.errors import TrackingError

_EVENTS = "events.jsonl"
_SENT = "sent.json"
_FILES = "files"


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

    def append(self, kind: str, **content: Any) -> None:
        """Write one event.

        Args:
            kind: What happened: `start`, `metrics`, `tags`, `artifact` or `end`.
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

    def add_file(self, source: Path, destination: str | None) -> None:
        """Copy a file or a folder into the spool and note where it goes in the run.

        Args:
            source: The file or folder as it is now.
            destination: Folder inside the run's artifacts, or `None` for their root.
        """
        name = uuid.uuid4().hex
        target = self.folder / _FILES / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.mkdir()
            shutil.copy2(source, target / source.name)
        self.append("artifact", files=name, destination=destination)

    def add_text(self, text: str, path: str) -> None:
        """Note a text that becomes the artifact `path` (with forward slashes)."""
        name = uuid.uuid4().hex
        folder, _, file_name = path.rpartition("/")
        target = self.folder / _FILES / name
        target.mkdir()
        (target / file_name).write_text(text, encoding="utf-8")
        self.append("artifact", files=name, destination=folder or None)

    def events(self, offset: int = 0) -> Iterator[Event]:
        """Events from a place in the file on; a half-written last line is left out.

        Args:
            offset: The `end` of the last event that is known already.

        Yields:
            The events in order.
        """
        with (self.folder / _EVENTS).open("rb") as file:
            file.seek(offset)
            for line in file:
                if line.endswith(b"\n"):
                    offset += len(line)
                    yield Event(json.loads(line), offset)

    def files(self, event: Event) -> Path:
        """The folder with the files of an artifact event."""
        return self.folder / _FILES / str(event["files"])

    def sent(self) -> tuple[int, str | None]:
        """Up to which place in the file the store holds everything, and the id of the run there."""
        path = self.folder / _SENT
        if not path.is_file():
            return 0, None
        data = json.loads(path.read_text(encoding="utf-8"))
        return data["offset"], data["run_id"]

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
