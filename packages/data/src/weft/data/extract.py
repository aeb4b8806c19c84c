"""Run a frozen encoder over records and store what it gives; a run that was killed goes on where it stopped."""

import io
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.atomic import write_bytes, write_text
from weft.data.engines import Engine, check_engine, run_jobs
from weft.data.errors import InvalidArgumentError, StateMismatchError
from weft.data.features import FeatureKey, FeatureStore, write_features
from weft.data.record_set import RecordSet
from weft.data.records import Record

Encode = Callable[[Sequence[Record]], Sequence[NDArray[Any]]]
Job = tuple[RecordSet[Any], Encode, str, int]


def extract_features(
    records: RecordSet[Any],
    encode: Encode,
    path: str | os.PathLike[str],
    key: FeatureKey,
    *,
    batch_size: int = 32,
    shard_items: int = 4096,
    ragged: bool = False,
    engine: Engine = "serial",
    workers: int = 2,
    place: tuple[int, int] = (0, 1),
    meet: Callable[[], None] | None = None,
) -> FeatureStore:
    """Encode every record and write the store; every engine, and any number of processes, writes the same bytes.

    Work in progress lies in `PATH.parts` and is removed at the end.

    Args:
        records: What to encode.
        encode: Maps a batch of records to one array each. For "processes" and "ray" it must pickle.
        path: Folder of the store; must not exist or be empty.
        key: What the features depend on.
        batch_size: Records per call of `encode`.
        shard_items: Records per part and per shard.
        ragged: Whether items have different lengths.
        engine: "serial", "processes" or "ray".
        workers: Processes of a pool, or parts at a time on Ray.
        place: Number of this process and of all that call this together with the same arguments, on one file system;
            they share the parts out, and the first writes the store.
        meet: Waits until every process of `place` is there; needed if there are several.

    Raises:
        InvalidArgumentError: If there is nothing to encode, `encode` returns the wrong number of arrays, or `place` and
            `meet` do not fit together.
        StateMismatchError: If `PATH.parts` belongs to another extraction.
        UnknownNameError: For an unknown engine.
        MissingDependencyError: If Ray is asked for and not installed.
    """
    check_engine(engine)
    if not len(records) or min(batch_size, shard_items, workers) < 1:
        raise InvalidArgumentError(
            "`records` must not be empty and `batch_size`, `shard_items` and `workers` must be positive, but there "
            f"are {len(records)} records, and the numbers are {batch_size}, {shard_items} and {workers}."
        )
    rank, size = place
    if not 0 <= rank < size or (meet is None) != (size == 1):
        raise InvalidArgumentError(
            "`place` must be (number of this process, number of all), with `meet` if there are several, but is "
            f"{place} {'without' if meet is None else 'with'} `meet`. Several processes wait for one another."
        )
    parts = Path(f"{os.fspath(path)}.parts")
    _claim(parts, {"key": asdict(key), "records": records.fingerprint(), "shard_items": shard_items})
    jobs: list[Job] = [
        (records[first : first + shard_items], encode, str(parts / f"{number:05d}.npz"), batch_size)
        for number, first in enumerate(range(0, len(records), shard_items))
    ]
    if jobs[rank::size]:
        deque(run_jobs(encode_part, jobs[rank::size], engine, workers), maxlen=0)
    if meet is not None:
        meet()
    if rank == 0:
        files = [target for _, _, target, _ in jobs]
        write_features(path, _items(files), key, ragged=ragged, shard_items=shard_items)
        shutil.rmtree(parts)
    if meet is not None:
        meet()
    return FeatureStore(path, key)


def encode_part(job: Job) -> str:
    """Encode the records of one part and write it whole, unless it is there already; return its path."""
    records, encode, target, batch_size = job
    if not Path(target).exists():
        arrays: dict[str, NDArray[Any]] = {}
        for first in range(0, len(records), batch_size):
            batch = list(records[first : first + batch_size])
            made = encode(batch)
            if len(made) != len(batch):
                raise InvalidArgumentError(
                    f"`encode` must return one array per record ({len(batch)}), but returned {len(made)}."
                )
            for offset, array in enumerate(made):
                arrays[f"{first + offset:09d}"] = np.asarray(array, dtype=np.float16)
        stream = io.BytesIO()
        save: Any = np.savez
        save(stream, ids=np.array([record.id for record in records]), **arrays)
        write_bytes(target, stream.getvalue())
    return target


def _items(files: Sequence[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    for file in files:
        with np.load(file, allow_pickle=False) as part:
            for position, identity in enumerate(part["ids"].tolist()):
                yield identity, part[f"{position:09d}"]


def _claim(parts: Path, plan: dict[str, Any]) -> None:
    note = parts / "plan.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != plan:
        raise StateMismatchError(
            f"{parts} must belong to this extraction, but belongs to another encoder, data set or shard size. Remove "
            "it, or choose another path."
        )
    write_text(note, json.dumps(plan))
