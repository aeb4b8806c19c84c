"""Run a frozen encoder over media and keep what it gives; a killed run resumes where it stopped.

A store grows by what it lacks. One extraction at a time writes to it, and others wait, to find their features there.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import InUseError, InvalidArgumentError, StateMismatchError
from weft.data.features.identity import content_of, identity_of
from weft.data.features.index import INDEX, FeatureKey, Index, read_index, require_key
from weft.data.features.shards import (
    OpenShard,
    Shard,
    array_file,
    checked,
    read_items,
    require_shape,
    shard_name,
    write_shard,
)
from weft.data.features.store import FeatureStore
from weft.data.features.write import described
from weft.data.processes.engines import Engine, check_engine, run_jobs
from weft.data.processes.locks import held
from weft.data.records.record import Record

Encode = Callable[[Sequence[Record]], Sequence[NDArray[Any]]]
Decide = Callable[[Callable[[], Any]], Any]

LOCK = ".lock"
_POLL = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The records of one shard, as a worker gets them; words as in `extract_features`."""

    folder: str
    name: str
    ids: list[str]
    records: list[Record]
    tags: list[str]
    encode: Encode
    batch_size: int
    dtype: str
    ragged: bool


def extract_features(
    records: Sequence[Record],
    encode: Encode,
    path: str | os.PathLike[str],
    key: FeatureKey,
    *,
    tag: Callable[[Any], str] | None = None,
    batch_size: int = 32,
    shard_items: int = 1024,
    ragged: bool = False,
    dtype: str = "float16",
    engine: Engine = "serial",
    workers: int = 2,
    place: tuple[int, int] = (0, 1),
    decide: Decide | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Encode every record whose features a store lacks, and return the store.

    Every engine, and any number of processes, writes the same bytes. A call that finds another one at work on the same
    store says so, waits, and then adds what is still missing.

    Args:
        records: What to encode, such as `Caption`; records of the same medium are encoded once.
        encode: Maps a batch of records to one array each. For "processes" and "ray" it must pickle.
        path: Folder of the store; made if absent.
        key: What the features depend on beside the media.
        tag: What else the features of a record depend on, such as its id where that draws a crop.
        batch_size: Records per call of `encode`.
        shard_items: Records per shard; what is lost at most when a process is killed.
        ragged: Whether items have different lengths.
        dtype: "float16" or "float32".
        engine: "serial", "processes" or "ray".
        workers: Processes of a pool, or shards at a time on Ray.
        place: Number of this process and of all that call this together with the same arguments, on one file system;
            the shards are divided among them.
        decide: Calls a function on the first process and returns what it returns, or raises what it raises, on all of
            `place`; needed if there are several. They meet in it after every batch, so that none waits for long.
        progress: Called on every process with records done by all, as far as this one can tell, and records to do.

    Raises:
        InvalidArgumentError: If there is nothing to encode, `encode` returns the wrong number of arrays, or `place` and
            `decide` do not fit together.
        StateMismatchError: If the store is one of another encoder.
        MalformedRecordError: If a shape differs, or a value is not finite in `dtype`.
        MissingFileError: If a file is not there.
        UnknownNameError: For an unknown engine.
        MissingDependencyError: If Ray is asked for and not installed.
    """
    check_engine(engine)
    _check(records, batch_size, shard_items, workers, place, decide, engine)
    tags = [""] * len(records) if tag is None else [tag(record) for record in records]
    index = Index(key, "identity", dtype, ragged)
    work = _Work(Path(path), index, records, tags, encode, batch_size, shard_items, engine, workers)
    return work.done(place, decide or (lambda function: function()), progress)


@dataclass(frozen=True)
class _Work:
    """What `extract_features` was asked for."""

    folder: Path
    index: Index
    records: Sequence[Record]
    tags: list[str]
    encode: Encode
    batch_size: int
    shard_items: int
    engine: Engine
    workers: int

    def done(
        self, place: tuple[int, int], first: Decide, progress: Callable[[int, int], None] | None
    ) -> FeatureStore:
        """Do what is missing, once nobody else writes, and return the store."""
        missing: list[tuple[int, str]] = first(self.missing)
        with _Door() as door:
            while missing and not first(lambda: door.take(self.folder)):
                time.sleep(_POLL)
            if missing:
                first(lambda: _clean(self.folder))
                first(self.adopt)
                missing = first(self.missing)
            if missing:
                parts = self.parts(missing, first(self.used))
                report = _Report(progress, len(missing), place[1])
                if place[1] == 1:
                    encode = report.around(encode_part, self.engine)
                    for _ in run_jobs(encode, parts, self.engine, self.workers):
                        self.adopt()
                else:
                    _together(parts, place, first, report, self.adopt)
            first(lambda: None)
            return FeatureStore(self.folder, self.index.key)

    def missing(self) -> list[tuple[int, str]]:
        """Position and id of one record of every medium whose features are not in the store."""
        there = (self.folder / INDEX).is_file()
        store = FeatureStore(self.folder, self.index.key, sample=0) if there else None
        wanted: dict[str, int] = {}
        for position, (record, tag) in enumerate(zip(self.records, self.tags, strict=True)):
            if store is None or store.find(record, tag) is None:
                wanted.setdefault(identity_of(record, tag), position)
        return [(position, identity) for identity, position in wanted.items()]

    def used(self) -> set[int]:
        """Numbers of the shards that are there."""
        there = (self.folder / INDEX).is_file()
        return {shard.number for shard in read_index(self.folder).shards} if there else set()

    def parts(self, missing: Sequence[tuple[int, str]], used: set[int]) -> list[Part]:
        """Shards of what is missing, under the first free numbers."""
        free = (number for number in range(len(missing) + len(used) + 1) if number not in used)
        made = []
        for start, number in zip(range(0, len(missing), self.shard_items), free, strict=False):
            positions, ids = map(list, zip(*missing[start : start + self.shard_items], strict=True))
            records, tags = ([own[position] for position in positions] for own in (self.records, self.tags))
            how = (self.encode, self.batch_size, self.index.dtype, self.index.ragged)
            made.append(Part(str(self.folder), shard_name(number, ids), ids, records, tags, *how))
        return made

    def adopt(self) -> None:
        """Enter whole shards into the index, also those of a run that was killed."""
        index = self.index
        if (self.folder / INDEX).is_file():
            index = read_index(self.folder)
            require_key(self.folder, index.key, self.index.key)
        known = {shard.name for shard in index.shards}
        new: list[Shard] = []
        shape: tuple[int, ...] | None = None
        if index.item_shape is not None:
            shape = tuple(side for side in index.item_shape if side is not None)
        files = self.folder.glob("features-*.npy")
        for name in sorted(file.name.removeprefix("features-").removesuffix(".npy") for file in files):
            if name not in known:
                row = OpenShard(self.folder, name, index.ragged).row(0)
                shape = require_shape(name, row, shape, index.ragged)
                new.append(described(self.folder, name, len(read_items(self.folder, name)["ids"])))
        if new and shape is not None:
            index.with_shards(new, shape).write(self.folder)


def encode_part(part: Part, done: Callable[[int], None] | None = None) -> str:
    """Encode the records of one part and write its shard, unless that is there already; return its name."""
    folder = Path(part.folder)
    if not (folder / array_file(part.name)).exists():
        arrays: list[NDArray[Any]] = []
        shape: tuple[int, ...] | None = None
        for start in range(0, len(part.records), part.batch_size):
            batch = part.records[start : start + part.batch_size]
            made = part.encode(batch)
            if len(made) != len(batch):
                raise InvalidArgumentError(
                    f"`encode` must return one array per record ({len(batch)}), but returned {len(made)}."
                )
            for record, array in zip(batch, made, strict=True):
                row, shape = checked(record.id, np.asarray(array), part.dtype, shape, part.ragged)
                arrays.append(row)
            if done is not None:
                done(len(batch))
        tagged = list(zip(part.records, part.tags, strict=True))
        contents = [content_of(record, tag) for record, tag in tagged]
        for identity, (record, tag) in zip(part.ids, tagged, strict=True):
            if identity_of(record, tag) != identity:
                raise StateMismatchError(
                    f"Media must stay as they are while they are encoded, but those of {record.id!r} "
                    f"({', '.join(ref.uri for ref in record.media_refs())}) changed. Extract again to resume."
                )
        write_shard(folder, part.name, part.ids, arrays, contents=contents, ragged=part.ragged)
    return part.name


class _Report:
    """Tells how far all processes are, and lets them meet after every batch."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int, size: int) -> None:
        self._progress, self._total, self._size, self._done = progress, total, size, 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            # The others are about as far.
            self._progress(min(self._total, self._done * self._size), self._total)

    def around(self, encode: Callable[..., str], engine: Engine) -> Callable[[Part], str]:
        """A function of a part alone; for other processes the plain one, which pickles."""
        return (lambda part: encode(part, self.add)) if engine == "serial" else encode


def _together(
    parts: Sequence[Part], place: tuple[int, int], first: Decide, report: _Report, adopt: Callable[[], None]
) -> None:
    """Encode this process's share, in step with the others: all meet as often, whatever each has to do."""
    rank, size = place
    beats = -(-max(len(part.ids) for part in parts) // parts[0].batch_size)
    for start in range(0, len(parts), size):
        left = beats

        def done(count: int) -> None:
            nonlocal left
            left -= 1
            report.add(count)
            first(lambda: None)

        if start + rank < len(parts):
            encode_part(parts[start + rank], done)
        for _ in range(left):
            first(lambda: None)
        first(adopt)


def _check(
    records: Sequence[Record],
    batch_size: int,
    shard_items: int,
    workers: int,
    place: tuple[int, int],
    decide: Decide | None,
    engine: Engine,
) -> None:
    if not len(records) or min(batch_size, shard_items, workers) < 1:
        raise InvalidArgumentError(
            "`records` must not be empty and `batch_size`, `shard_items` and `workers` must be positive, but there "
            f"are {len(records)} records, and the numbers are {batch_size}, {shard_items} and {workers}."
        )
    rank, size = place
    if not 0 <= rank < size or (decide is None) != (size == 1):
        raise InvalidArgumentError(
            "`place` must be (number of this process, number of all), with `decide` if there are several, but is "
            f"{place} {'without' if decide is None else 'with'} `decide`. Several processes wait for one another."
        )
    if size > 1 and engine != "serial":
        raise InvalidArgumentError(
            f"`engine` must be 'serial' where `place` says that there are several processes, but is {engine!r}. Choose "
            "one way to share the work."
        )


class _Door(ExitStack):
    """The lock of a store, once it is taken."""

    told = False

    def take(self, folder: Path) -> bool:
        """Take the lock and enter what killed runs left; say who has it, once, if it cannot be taken."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.enter_context(held(folder / LOCK, f"The feature store {folder}"))
        except InUseError as error:
            if not self.told:
                self.told = True
                _log.warning("%s Waiting for it.", error)
            return False
        return True


def _clean(folder: Path) -> None:
    """Remove what killed processes left half-written; nobody writes now."""
    for file in [*folder.glob(".features-*"), *folder.glob(".items-*"), *folder.glob(f".{INDEX}.*")]:
        file.unlink(missing_ok=True)
    for file in folder.glob("items-*.json"):
        if not (folder / array_file(file.name.removeprefix("items-").removesuffix(".json"))).exists():
            file.unlink()
