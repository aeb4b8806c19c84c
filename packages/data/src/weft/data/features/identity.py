"""What features are kept under: identities of media, and of records with all of theirs."""

import hashlib
from collections.abc import Callable

from weft.data.media.reference import MediaRef
from weft.data.records.record import Record


def identity_of(medium: MediaRef | Record, tag: str = "") -> str:
    """Return the id of the features of a medium, or of all media of a record; see `MediaRef.identity`.

    `tag` is what else the features depend on.

    Raises:
        MissingFileError: If a file is not there.
    """
    return _joined(medium, tag, lambda ref: ref.identity)


def content_of(medium: MediaRef | Record, tag: str = "") -> str:
    """Return a digest of what a medium holds, wherever it is; it is read for that. Arguments as in `identity_of`."""
    return _joined(medium, tag, lambda ref: ref.content)


def _joined(medium: MediaRef | Record, tag: str, digest: Callable[[MediaRef], str]) -> str:
    refs = (medium,) if isinstance(medium, MediaRef) else medium.media_refs()
    digests = [digest(ref) for ref in refs]
    if len(digests) == 1 and not tag:
        return digests[0]
    return hashlib.sha256(repr((digests, tag)).encode()).hexdigest()[:32]
