"""The catalogue of data sets: lazy, alphabetical, open to third parties.

A data set is a `SPEC` (or one of `SPECS`) of a module of `weft.data.datasets`, or the object behind an entry point of
group `weft.datasets`, or whatever `register_dataset` was given. No list of names is kept anywhere.
"""

import importlib
import inspect
import logging
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from weft.data.errors import InvalidArgumentError, MalformedRecordError, require_known, unknown_name
from weft.data.records.record import Record, record_class
from weft.data.records.record_set import RecordSet
from weft.data.records.source import OnError, Source
from weft.data.sources.opening import open_store
from weft.data.sources.store import Store

ENTRY_POINT_GROUP = "weft.datasets"


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A copy of the data on the Hugging Face hub.

    Args:
        repo: Repository id.
        revision: Commit or tag that was looked at, or "": hub data sets move, so whoever loads it pins one.
        note: How it differs from the official files, or "".
    """

    repo: str
    revision: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What is known about a data set before any file is opened.

    Args:
        name: Lower-case name, unique.
        record_type: Type of its records unless an option changes it, such as "image_qa".
        splits: Official split names, in their natural order; empty where the user names them.
        read: `read(source, split, **options)` yields records; its keyword-only parameters are the options.
        summary: One line.
        licence: Licence of annotations and media, as far as known.
        citation: Paper, in one line.
        how_to_get: Where the files come from and how they must be.
        bases: Folders below `root` where the official layout may begin.
        expected: Split to the number of records officially stated, where known.
        hub: Copies on the hub.
        needs_root: False for data sets that are generated.
        draw: `draw(source, split, **options)` gives a sequence that makes its records when they are asked for, where
            the format allows that; options as for `read`.
        find_splits: `find_splits(source, **options)` names the splits that a root has, where the user names them.
    """

    name: str
    record_type: str
    splits: tuple[str, ...]
    read: Callable[..., Iterable[Record]] = field(repr=False)
    summary: str
    licence: str
    citation: str = ""
    how_to_get: str = ""
    bases: tuple[str, ...] = ("",)
    expected: Mapping[str, int] = field(default_factory=dict)
    hub: tuple[HubSource, ...] = ()
    needs_root: bool = True
    draw: Callable[..., Sequence[Record]] | None = field(default=None, repr=False)
    find_splits: Callable[..., Sequence[str]] | None = field(default=None, repr=False)

    @property
    def options(self) -> dict[str, Any]:
        """Loader options and their defaults."""
        parameters = inspect.signature(self.read).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


_log = logging.getLogger(__name__)
_registered: dict[str, DatasetSpec] = {}
_discovered = False


def register_dataset(spec: DatasetSpec, *, replace: bool = False) -> DatasetSpec:
    """Add a data set to the catalogue; `replace` allows a name that is taken.

    Raises:
        InvalidArgumentError: If the name is taken.
        UnknownNameError: If the record type is unknown.
    """
    record_class(spec.record_type, f"record type of data set {spec.name!r}")
    if spec.name in _registered and not replace and _registered[spec.name] is not spec:
        raise InvalidArgumentError(
            f"`name` of a data set must be unique, but {spec.name!r} is taken. "
            "Choose another name or pass replace=True."
        )
    _registered[spec.name] = spec
    return spec


def list_datasets() -> list[str]:
    """Return the names of all data sets, sorted.

    >>> "easy_vqa" in list_datasets()
    True
    """
    _discover()
    return sorted(_registered)


def dataset_spec(name: str) -> DatasetSpec:
    """Return what is known about a data set.

    Raises:
        UnknownNameError: With near matches, if there is no such data set.
    """
    _discover()
    require_known("data set", _registered, name, advice="See list_datasets().")
    return _registered[name]


def load_dataset(
    name: str,
    root: str | os.PathLike[str] | Store | None = None,
    split: str = "train",
    *,
    storage_options: Mapping[str, Any] | None = None,
    on_error: OnError = "raise",
    require_media: bool = True,
    follow_links: bool = False,
    streaming: bool = False,
    **options: Any,
) -> RecordSet[Any]:
    """Read the annotations of one split; images and videos stay closed until a record is asked for them.

    Args:
        name: A name of `list_datasets()`.
        root: Where the official files are: a folder, a zip or tar archive, any fsspec URL, or a `Store`.
        split: A split of the data set.
        storage_options: What the fsspec filesystem needs; never printed.
        on_error: "raise" stops at the first malformed row; "skip" leaves such rows out and lists them in
            `RecordSet.skipped`.
        require_media: Whether absent images or videos stop the loading.
        follow_links: Allow links that lead out of a local `root`.
        streaming: Make records when they are asked for instead of listing them: memory holds a few row groups. Ids that
            appear twice are not found then.
        **options: Options of this data set; see `dataset_spec(name).options`.

    Raises:
        UnknownNameError: Unknown data set, split or option, with near matches.
        MissingFileError: Files that are not there, with every path tried and how to get them.
        MalformedRecordError: A row that breaks the format, or an id that appears twice.
        InvalidArgumentError: No `root` for a data set that needs one, or `streaming` of one that must be listed.
    """
    spec = _asked(name, root, split, streaming, options)
    if not isinstance(root, Store):
        root = open_store(root or ".", storage_options, follow_links=follow_links)
    source = Source(name, root, spec.bases, spec.how_to_get, on_error, require_media)
    records: Sequence[Record]
    if streaming and spec.draw is not None:
        records = spec.draw(source, split, **options)
    else:
        records = list(_checked(name, spec.read(source, split, **options)))
    for note in source.notes:
        _log.warning("%s, split %s: %s", name, split, note)
    kind = records[0].record_type if records else spec.record_type
    found = (tuple(source.skipped), tuple(source.classes), tuple(source.notes))
    return RecordSet(name, split, kind, records, *found)


def _asked(name: str, root: Any, split: str, streaming: bool, options: Mapping[str, Any]) -> DatasetSpec:
    """The data set that arguments of `load_dataset` name, which it can give."""
    spec = dataset_spec(name)
    if streaming and spec.draw is None:
        raise InvalidArgumentError(
            f"`streaming` must be left out of data set {name!r}, which must be read to know its records. Convert it "
            f"with `weft data convert`, and stream the shards: {', '.join(streamed_datasets())} can be."
        )
    if spec.splits and split not in spec.splits:
        raise unknown_name(f"split of {name}", split, spec.splits)
    require_known(f"option of {name}", spec.options, *options)
    if root is None and spec.needs_root:
        raise InvalidArgumentError(
            f"`root` must be given for data set {name!r}, but is None. "
            f"How to get the files: {spec.how_to_get}"
        )
    return spec


def streamed_datasets() -> list[str]:
    """The names of the data sets that `load_dataset(streaming=True)` takes, sorted."""
    return [name for name in list_datasets() if dataset_spec(name).draw is not None]


def splits_of(
    name: str,
    root: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Any,
) -> tuple[str, ...]:
    """The splits of a data set: the official ones, or those that a root has where the user names them.

    Arguments are as for `load_dataset`.

    Raises:
        UnknownNameError: Unknown data set.
        InvalidArgumentError: There is none under the root.
    """
    spec = dataset_spec(name)
    if spec.splits:
        return spec.splits
    store = open_store(root, storage_options, follow_links=follow_links)
    source = Source(name, store, spec.bases, spec.how_to_get)
    found = tuple(spec.find_splits(source, **options)) if spec.find_splits is not None else ()
    if not found:
        raise InvalidArgumentError(
            f"`splits` must be named for data set {name!r}, because its users name them and none is found in "
            f"{store.describe()}. How to get the files: {spec.how_to_get}"
        )
    return found


def _checked(name: str, records: Iterable[Record]) -> Iterable[Record]:
    """Yield records, refusing an id that appears twice."""
    seen: dict[str, int] = {}
    for position, record in enumerate(records):
        first = seen.setdefault(record.id, position)
        if first != position:
            raise MalformedRecordError(
                f"Ids of {name!r} must be unique, but {record.id!r} is that of records {first} and {position}. Remove "
                "one of them from the annotation file."
            )
        yield record


def _discover() -> None:
    global _discovered
    if _discovered:
        return
    package = importlib.import_module("weft.data.datasets")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            loaded = importlib.import_module(f"weft.data.datasets.{module.name}")
            for spec in getattr(loaded, "SPECS", None) or (loaded.SPEC,):
                register_dataset(spec)
    _discovered = True
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        register_dataset(entry.load(), replace=True)
