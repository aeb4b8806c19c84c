"""Open what a URL names as a store: a folder, or an archive that is read in place."""

import os
from collections.abc import Mapping
from typing import Any

from weft.data.sources.archives import ARCHIVE_ENDINGS, ArchiveStore
from weft.data.sources.folders import FolderStore
from weft.data.sources.store import Store


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
