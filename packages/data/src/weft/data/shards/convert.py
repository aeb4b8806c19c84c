"""Write a record set as Parquet shards: serially, in processes, or on Ray, with byte-identical results.

A killed run resumes where it stopped: shards are written whole, and those that are there are kept.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.data.errors import InvalidArgumentError, StateMismatchError
from weft.data.processes.atomic import write_bytes, write_text
from weft.data.processes.engines import Engine, check_engine, run_jobs
from weft.data.records.record_set import RecordSet
from weft.data.records.rows import read_kept
from weft.data.shards.parquet import INDEX, VERSION, ShardedRecords, ShardInfo, encode_shard

_PLAN = "plan.json"
Job = tuple[RecordSet[Any], str, int, int, bool]


def convert(
    records: RecordSet[Any],
    path: str | os.PathLike[str],
    *,
    rows_per_shard: int = 2_000,
    group_rows: int = 64,
    embed_media: bool = True,
    engine: Engine = "serial",
    workers: int = 2,
) -> ShardedRecords:
    """Write shards and their index; return them opened.

    Args:
        records: What to write.
        path: Folder; may hold an unfinished run of the same conversion.
        rows_per_shard: Records per shard; choose it so that shards have 100 to 256 MB.
        group_rows: Records per row group.
        embed_media: Whether media go into the shards; else only their paths, and `path` must hold them too.
        engine: "serial", "processes" (a pool), or "ray".
        workers: Processes of a pool, or parallel tasks on Ray.

    Raises:
        InvalidArgumentError: If there is nothing to write, or a number is not positive.
        UnknownNameError: For an unknown engine.
        StateMismatchError: If the folder holds another conversion.
        MissingDependencyError: If Ray is asked for and not installed.
    """
    check_engine(engine)
    if not len(records):
        raise InvalidArgumentError("`records` must hold at least one record, but is empty.")
    if min(rows_per_shard, group_rows, workers) < 1:
        raise InvalidArgumentError(
            "`rows_per_shard`, `group_rows` and `workers` must be positive, but are "
            f"{rows_per_shard}, {group_rows} and {workers}."
        )
    folder = Path(path)
    said = {"name": records.name, "split": records.split, "task": records.record_type}
    index = {"version": VERSION, **said, "group_rows": group_rows}
    _claim(folder, {**index, **_contents(records, rows_per_shard, embed_media)})
    jobs = [
        (records[first : first + rows_per_shard], str(folder), number, group_rows, embed_media)
        for number, first in enumerate(range(0, len(records), rows_per_shard))
    ]
    infos = sorted(run_jobs(write_shard, jobs, engine, workers), key=lambda info: info.file)
    write_text(folder / INDEX, json.dumps({**index, "shards": [asdict(info) for info in infos]}, indent=1))
    for left in (folder / _PLAN, *folder.glob(".shard-*")):  # what killed processes left half-written, too
        left.unlink()
    return ShardedRecords(folder)


def write_shard(job: Job) -> ShardInfo:
    """Write one shard whole, unless it is there already; the same function on every engine."""
    records, folder, number, group_rows, embed_media = job
    target = Path(folder) / f"shard-{number:05d}.parquet"
    if target.exists():
        data = target.read_bytes()
    else:
        data = encode_shard(records, group_rows=group_rows, embed_media=embed_media)
        write_bytes(target, data)
    return ShardInfo(target.name, len(records), len(data), hashlib.sha256(data).hexdigest())


def _contents(records: RecordSet[Any], rows_per_shard: int, embed_media: bool) -> dict[str, Any]:
    """What the shards of a conversion depend on beside its index; of media, which images are written."""
    digest = hashlib.sha256()
    for record in records if embed_media else ():
        digest.update("".join(ref.identity for ref in record.media_refs()).encode())
    return {
        "rows_per_shard": rows_per_shard,
        "embed_media": embed_media,
        "records": records.fingerprint(),
        "media": digest.hexdigest() if embed_media else "",
    }


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Refuse a folder with something else in it; note the plan of this conversion."""
    if (folder / _PLAN).exists():
        if read_kept(folder / _PLAN).value != plan:
            raise StateMismatchError(
                f"`path` must hold an unfinished run of the same conversion, but {folder} holds another. Remove it, or "
                "choose another folder."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise StateMismatchError(
            f"`path` must be empty or hold an unfinished run, but {folder} holds something else. Remove it, or choose "
            "another folder."
        )
    write_text(folder / _PLAN, json.dumps(plan))
