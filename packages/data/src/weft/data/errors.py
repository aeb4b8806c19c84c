"""Errors of `weft.data`: one base class, one grammar, near matches for misspelt names, no credentials."""

import difflib
import importlib
import re
from collections.abc import Collection, Iterable
from typing import Any

_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^/\s]+@")
_SECRET_PAIR = re.compile(
    r"(?i)(?P<name>[\w-]*(?:token|secret|passw(?:or)?d|signature|credential|api[_-]?key|access[_-]?key|\bsig|\bkey)"
    r"[\w-]*)(?P<sep>['\"]?\s*[=:]\s*['\"]?)(?P<value>[^\s&'\",;}]+)"
)
_BEARER = re.compile(r"(?i)\b(?P<kind>bearer|basic)\s+[\w.~+/=-]{6,}")
_NEAR_SPLITS = {
    "val": ("valid", "validation", "dev"),
    "valid": ("val", "validation", "dev"),
    "validation": ("val", "valid", "dev"),
    "dev": ("val", "valid", "validation"),
    "test": ("test_public", "testdev", "test_std", "val"),
    "train": ("train_all", "training"),
}


class WeftDataError(Exception):
    """Base class of every error that `weft.data` raises on purpose."""


class UnknownNameError(WeftDataError, LookupError):
    """A data set, split, option, task or class name that does not exist."""


class MissingFileError(WeftDataError, FileNotFoundError):
    """Files of a data set that are not where they were looked for."""


class StoreAccessError(WeftDataError, OSError):
    """A remote place that refuses, fails or cannot be reached; the text holds no credentials."""


class MalformedRecordError(WeftDataError, ValueError):
    """A row of an annotation file that breaks the format; names file, row, rule and remedy."""


class CorruptMediaError(WeftDataError, OSError):
    """An image, video, archive or feature file that cannot be decoded."""


class UnsafePathError(WeftDataError, ValueError):
    """A path from data that would leave the folder or archive it belongs to."""


class InvalidArgumentError(WeftDataError, ValueError):
    """An argument outside its documented range."""


class StateMismatchError(WeftDataError, ValueError):
    """Saved state (sampler, draw, store) that belongs to something else."""


class InUseError(WeftDataError, RuntimeError):
    """A folder or a store that another process is writing to; names it, its machine and since when."""


class WorkerDiedError(WeftDataError, RuntimeError):
    """A worker process that was killed or ran out of memory; what was finished is kept."""


class MissingDependencyError(WeftDataError, ImportError):
    """An optional library that is not installed; the text holds the install command."""


def needed(module: str, what: str, library: str, install: str) -> Any:
    """Return an optional module, or say what needs it and how to install it.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(
            f"{what} needs {library}. Install it with: pip install {install}"
        ) from None


def redact(text: str) -> str:
    """Return `text` with `***` for user names, passwords, tokens and signatures of URLs and `name=value` pairs.

    >>> redact("s3://me:pw@bucket/a.zip?X-Amz-Signature=abc&part=2")
    's3://***@bucket/a.zip?X-Amz-Signature=***&part=2'
    """
    text = _BEARER.sub(r"\g<kind> ***", _USER_INFO.sub(r"\g<scheme>***@", text))
    return _SECRET_PAIR.sub(r"\g<name>\g<sep>***", text)


def near_matches(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names closest to `name`, best first, at most `limit`.

    >>> near_matches("easy_vqq", ["easy_vqa", "nlvr", "vqav2"])
    ['easy_vqa']
    """
    names = sorted(set(known))
    folded = {_fold(candidate): candidate for candidate in reversed(names)}
    synonyms = [candidate for candidate in _NEAR_SPLITS.get(name.lower(), ()) if candidate in names]
    close = difflib.get_close_matches(_fold(name), list(folded), n=limit, cutoff=0.55)
    return list(dict.fromkeys([*synonyms, *(folded[key] for key in close)]))[:limit]


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def unknown_name(what: str, name: str, known: Iterable[str], advice: str = "") -> UnknownNameError:
    """Build the error for a name of something, such as "data set" or "split of easy_vqa", that does not exist.

    `advice` is one more sentence with the next step.
    """
    names = sorted(set(known))
    near = near_matches(name, names)
    meant = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    listing = ", ".join(names) if names else "none"
    tail = f" {advice}" if advice else ""
    return UnknownNameError(f"Unknown {what}: {name!r}.{meant} Known: {listing}.{tail}")


def require_known(what: str, known: Collection[str], *names: str, advice: str = "") -> None:
    """Refuse names that do not exist; words as in `unknown_name`.

    Raises:
        UnknownNameError: With near matches of the first of them.
    """
    for name in names:
        if name not in known:
            raise unknown_name(what, name, known, advice)
