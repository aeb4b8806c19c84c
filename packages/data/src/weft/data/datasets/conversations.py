"""Your own conversations, as LLaVA, LLaMA-Factory and TRL read them: files, saved data sets, the hub."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.datasets import table
from weft.data.errors import InvalidArgumentError
from weft.data.records.conversation import Conversation
from weft.data.records.hub import hub_records, is_saved, saved_splits
from weft.data.records.record import Record
from weft.data.records.source import MediaFolder, Source
from weft.data.sources.folders import FolderStore

_SHARD = re.compile(r"(?:data/)?(?P<split>[^/]+)-\d{5}-of-\d{5}\.parquet")


def read(
    source: Source,
    split: str,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    file: str | None = None,
    media_root: str = "",
    repo: str | None = None,
    revision: str | None = None,
    config: str | None = None,
) -> Iterable[Record]:
    """One `Conversation` per row; columns that it does not need go to `extra`.

    Rows of files are read; those of saved data sets and of the hub are made when they are asked for.

    The root is a folder of `SPLIT.json` (or .jsonl, .parquet, .csv, .tsv), one such file, a folder that `datasets`
    saved or that is in the hub's format, or nothing where `repo` names a data set of the hub.

    Options:
        columns: `messages`, `images`, `videos`, `system`, `prompt`, `completion` or `id` to the name of its column. By
            default `messages` or `conversations`, or else `prompt` and `completion`; `images` or `image`, `videos` or
            `video`.
        file: Path of the file below the root, where it is not named like the split.
        media_root: Folder below the root that paths of images start from.
        repo: Repository id on the hub.
        revision: Commit or tag of the repository, which must be given: data sets of the hub move.
        config: Configuration of the repository.
    """
    kind, columns, folder = Conversation.record_type, columns or {}, media_root.strip("/")
    if file is not None or (repo is None and not _is_hub(source, split)):
        return table.read(source, split, record=kind, columns=columns, file=file, media_root=folder)
    media = MediaFolder(source.store, folder)
    return hub_records(repo, split, media, record=kind, columns=columns, revision=revision, name=config)


def draw(source: Source, split: str, **options: Any) -> Sequence[Record]:
    """The conversations of a data set of the hub, or of a folder in its formats, made when they are asked for.

    Arguments are those of `read`.

    Raises:
        InvalidArgumentError: If they are in a file, which must be read to know its rows.
    """
    found = read(source, split, **options)
    if not isinstance(found, Sequence):
        raise InvalidArgumentError(
            f"`streaming` must be left out of conversations in a file, but {source.store.describe()} is no folder that "
            "`datasets` saved. Convert it with `weft data convert`, and stream the shards."
        )
    return found


def _is_hub(source: Source, split: str) -> bool:
    """Whether the root is a local folder that `datasets` saved, or that holds the split in numbered Parquet files."""
    store = source.store
    if not isinstance(store, FolderStore) or not Path(store.url).is_dir():
        return False
    return is_saved(Path(store.url)) or split in _numbered(store)


def _numbered(store: FolderStore) -> set[str]:
    return {found["split"] for name in store.names() if (found := _SHARD.fullmatch(name))}


def find_splits(source: Source, *, file: str | None = None, **options: Any) -> list[str]:
    """Those of the saved data set or of its numbered files, or the names of the tables at the root."""
    store = source.store
    if file is None and isinstance(store, FolderStore) and Path(store.url).is_dir():
        found = saved_splits(Path(store.url)) or sorted(_numbered(store))
        if found:
            return found
    return table.find_splits(source, file=file)


SPEC = DatasetSpec(
    name="conversations",
    record_type=Conversation.record_type,
    splits=(),
    read=read,
    draw=draw,
    find_splits=find_splits,
    summary="Your own conversations with images or videos: LLaVA JSON, `messages` + `images`, TRL's messages, the hub.",
    licence="yours",
    how_to_get="Put SPLIT.json, SPLIT.jsonl or SPLIT.parquet into ROOT, or name it with file=; ROOT may be what "
    "`save_to_disk` wrote. For the hub give options repo=org/name revision=COMMIT.",
    needs_root=False,
)
