"""Shards as a record set whose records are read when asked for."""

import os
from collections.abc import Mapping
from typing import Any

from weft.data.records.record_set import RecordSet
from weft.data.shards.parquet import ShardedRecords


def open_shards(
    root: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> RecordSet[Any]:
    """Return the record set of a sharded data set; records are read when asked for.

    Args:
        root: Folder or URL of the shards.
        storage_options: What the fsspec filesystem needs; never printed.
    """
    records = ShardedRecords(root, storage_options)
    return RecordSet(records.name, records.split, records.record_type, records)
