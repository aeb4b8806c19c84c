"""A split of a data set: a sequence of records of one type, with what is known about it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, overload

from weft.data.errors import InvalidArgumentError, MissingFileError
from weft.data.media.reference import MediaRef
from weft.data.records.record import Record
from weft.data.sources.store import BytesStore, Store

R = TypeVar("R", bound=Record)
_NAMED = 3  # absent files that a message names


@dataclass(frozen=True)
class RecordSet(Sequence[R], Generic[R]):
    """The records of one split, in file order.

    Args:
        name: Name of the data set.
        split: Name of the split.
        record_type: Type of the records, such as "image_qa".
        records: The records; a list, or any sequence that makes them on demand.
        skipped: One message per malformed row that was left out.
        classes: Class names in the order of their labels, also of those that no record has; empty where not known.
        notes: What the loader found that may not be meant, one sentence each.
    """

    name: str
    split: str
    record_type: str
    records: Sequence[R] = field(repr=False)
    skipped: tuple[str, ...] = field(default=(), repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> "RecordSet[R]": ...
    def __getitem__(self, index: int | slice) -> "R | RecordSet[R]":
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return self.records[index]

    def __iter__(self) -> Iterator[R]:
        return iter(self.records)

    def select(self, indices: Sequence[int]) -> "RecordSet[R]":
        """Return the records at `indices`, in that order.

        Raises:
            InvalidArgumentError: If an index is outside 0..len-1.
        """
        for index in indices:
            if not 0 <= index < len(self):
                raise InvalidArgumentError(
                    f"`indices` must lie in 0..{len(self) - 1}, but one is {index}. "
                    "The draw may belong to another version of the data."
                )
        return replace(self, records=[self.records[index] for index in indices])

    def filter(self, keep: Callable[[R], bool]) -> "RecordSet[R]":
        """Return the records that `keep` accepts."""
        return replace(self, records=[record for record in self.records if keep(record)])

    def with_records(self, records: Sequence[R], split: str | None = None) -> "RecordSet[R]":
        """Return the same set with other records."""
        return replace(self, records=records, split=split or self.split)

    @property
    def class_names(self) -> list[str]:
        """Class names by label (classification only): those of the data set, or else of its records.

        Raises:
            InvalidArgumentError: If the records have no classes, a label has two names, or one that is not known.
        """
        names: dict[int, str] = dict(enumerate(self.classes))
        for record in self.records:
            label, name = getattr(record, "label", None), getattr(record, "class_name", None)
            if label is None or name is None:
                raise InvalidArgumentError(
                    f"`class_names` needs records of type 'classify', but {self.name!r} holds {self.record_type!r}. "
                    "Load a classification data set."
                )
            if names.setdefault(label, name) != name:
                raise InvalidArgumentError(
                    f"Label {label} of {self.name!r} must have one name, but has {names[label]!r} and {name!r}. "
                    "Repair the split file."
                )
        absent = next((label for label in range(len(names)) if label not in names), None)
        if absent is not None:
            raise InvalidArgumentError(
                f"`class_names` needs labels that count from 0 without gaps, but {self.name!r} ({self.split}) has no "
                f"record with label {absent}. Take the names of the training split."
            )
        return [names[label] for label in range(len(names))]

    def fingerprint(self) -> str:
        """Return a SHA-256 over all that the records say and the names of their media, not their content.

        It is equal exactly for the same records in the same order, wherever their files are. Records that are made on
        demand are not read where the sequence knows a `digest` of all of them.
        """
        known = getattr(self.records, "digest", None)
        digest = hashlib.sha256(f"{self.name}\0{self.split}\0{self.record_type}\0{known or ''}".encode())
        for record in self.records if known is None else ():
            shown = [(ref.path, ref.kind, ref.start, ref.end) for ref in record.media_refs()]
            digest.update(f"{record.without_media()!r}\0{shown!r}\0".encode(errors="backslashreplace"))
        return digest.hexdigest()

    def media_fingerprint(self) -> str:
        """Return a SHA-256 over sketches of all media, in order: a replaced picture gives another one.

        It is equal wherever the files are and whenever they were written; see `Store.sketch`. Records that are made on
        demand are not read where the sequence knows a `media_digest` of all of them.

        Raises:
            MissingFileError: If files are absent, with their number and the first of them.
            WeftDataError: If one cannot be reached, leaves its folder, or its archive is damaged.
        """
        known: str | None = getattr(self.records, "media_digest", None)
        if known is not None:
            return known
        digest, seen = hashlib.sha256(), set[tuple[Store, str]]()
        absent: list[MediaRef] = []
        for ref in (ref for record in self.records for ref in record.media_refs()):
            if not isinstance(ref.store, BytesStore):
                if (ref.store, ref.path) in seen:
                    continue
                seen.add((ref.store, ref.path))
            try:
                digest.update(f"{ref.store.sketch(ref.path)}\0".encode())
            except MissingFileError:
                absent.append(ref)
        if absent:
            named = ", ".join(ref.uri for ref in absent[:_NAMED])
            more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
            raise MissingFileError(
                f"The images and videos of {self.name!r} ({self.split}) must be there, but {len(absent):,} of "
                f"{len(seen):,} files are not: {named}{more}. Put them there, or leave out the records that show them."
            )
        return digest.hexdigest()
