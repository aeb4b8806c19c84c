"""Adapters on the Hugging Face hub, which `push_to_hub` of an adapted model puts there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from weft.core.errors import CheckpointError, near_matches

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(path: str | Path, files: Sequence[str], revision: str | None = None) -> Path:
    """The folder itself, or the one into which a repository of the hub was downloaded.

    Args:
        path: A folder, or the id of a repository, such as `someone/adapter`. A folder that exists comes first.
        files: Names of the files to download.
        revision: Branch, tag or commit of the repository; by default its main branch.

    Raises:
        CheckpointError: If the repository cannot be read, or a folder is given with a revision.
    """
    folder = Path(path)
    if folder.exists() or isinstance(path, Path) or _REPOSITORY.fullmatch(path) is None:
        if revision is not None:
            raise CheckpointError(
                f"`revision` must go with a repository of the hub, but `path` is the folder {folder}. Leave it out."
            )
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(files)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"`path` must be a folder that `save_pretrained` wrote or a repository of the hub, but there is no folder "
            f"{path} here, and the hub says: {str(error).strip()} "
            f"{like_named(folder) or 'Check the name, or download it first.'}"
        ) from error


def like_named(folder: Path) -> str:
    """A sentence with what has a similar name beside a folder that does not exist; empty if nothing has."""
    if folder.exists() or not folder.parent.is_dir():
        return ""
    near = near_matches(folder.name, sorted(path.name for path in folder.parent.iterdir()))
    return f"Did you mean {' or '.join(str(folder.parent / name) for name in near)}?" if near else ""
