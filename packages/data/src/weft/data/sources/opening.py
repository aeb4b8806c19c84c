"""Where bytes lie: local folders, zip and tar archives read in place, and any fsspec URL.

A `Store` is a small picklable value (a URL and its options); `open_store` chooses the kind by name.
"""

import os
from collections.abc import Mapping
from typing import Any

from weft.data.sources.archives import ARCHIVE_ENDINGS, ArchiveStore
from weft.data.sources.folders import FolderStore
from weft.data.sources.handles import close_handles
from weft.data.sources.store import BytesStore, Store, safe_member

__all__ = ["ArchiveStore", "BytesStore", "FolderStore", "Store", "close_handles", "open_store", "safe_member"]


def open_store(
    root: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    follow_links: bool = False,
) -> Store:
    """Return the store at `root`: an archive if the name ends like one, else a folder. Opens nothing.

    Args:
        root: Local path or fsspec URL.
        storage_options: What the fsspec filesystem needs, such as keys; never printed.
        follow_links: Allow links that lead out of a local folder.
    """
    url = os.fspath(root)
    if url.lower().endswith(ARCHIVE_ENDINGS) and not os.path.isdir(url):
        return ArchiveStore(url, dict(storage_options or {}))
    return FolderStore(url, dict(storage_options or {}), follow_links)
