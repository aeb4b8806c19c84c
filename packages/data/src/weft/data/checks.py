"""What a data set is and needs, and whether a folder has it: plain data for the command line to print."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from weft.data.catalog import dataset_spec, list_datasets, load_dataset, splits_of
from weft.data.errors import CorruptMediaError, WeftDataError
from weft.data.records.record_set import RecordSet

MAX_NAMED = 20


@dataclass(frozen=True)
class DatasetFacts:
    """What is known about a data set without opening a file."""

    name: str
    record_type: str
    splits: tuple[str, ...]
    sizes: Mapping[str, int]
    summary: str
    licence: str
    citation: str
    how_to_get: str
    options: Mapping[str, Any]
    hub: tuple[str, ...]


@dataclass(frozen=True)
class SplitCheck:
    """What was found of one split.

    Args:
        split: Its name.
        found: Records that were read; None if it could not be read.
        expected: Records officially stated, or None if not known.
        problems: One line per fault: missing files, malformed rows, absent or damaged media, odd counts.
        media_checked: Media whose presence was looked at.
        classes: Class name to its number of records, by label; empty but for classification.
        notes: What may not be meant, such as classes taken from the first of several folders.
    """

    split: str
    found: int | None
    expected: int | None
    problems: tuple[str, ...] = ()
    media_checked: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True)
class DatasetCheck:
    """What was found of a data set under a root."""

    name: str
    root: str
    splits: tuple[SplitCheck, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with any split."""
        return all(split.ok for split in self.splits)


def describe_dataset(name: str) -> DatasetFacts:
    """Return the facts about one data set.

    Raises:
        UnknownNameError: With near matches.
    """
    spec = dataset_spec(name)
    own = {each.name: getattr(spec, each.name) for each in fields(DatasetFacts) if each.name != "sizes"}
    hub = tuple(f"{source.repo}@{source.revision or '(pin a commit)'}" for source in spec.hub)
    return DatasetFacts(**{**own, "hub": hub}, sizes=dict(spec.expected))


def describe_datasets() -> list[DatasetFacts]:
    """Return the facts about every data set, sorted by name."""
    return [describe_dataset(name) for name in list_datasets()]


def check_dataset(
    name: str,
    root: str | os.PathLike[str],
    splits: Sequence[str] | None = None,
    *,
    media: Literal["none", "sample", "all"] = "sample",
    sample: int = 64,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Any,
) -> DatasetCheck:
    """Read every split and look at its media; faults are listed, not raised.

    Args:
        name: A name of `list_datasets()`.
        root: Where the files should be.
        splits: Splits to look at; by default all that are known, or that the root has where the user names them.
        media: "sample" decodes some images spread over the split, "all" looks for every file and decodes
            the sample, "none" looks at annotations only.
        sample: Images to decode per split.
        storage_options: What the fsspec filesystem needs; never printed.
        follow_links: Allow links that lead out of a local root.
        **options: Options of the data set.

    Raises:
        UnknownNameError: Unknown data set, split or option.
        InvalidArgumentError: No split is given, and the root has none.
    """
    places: dict[str, Any] = {"storage_options": storage_options, "follow_links": follow_links}
    found = []
    for split in splits or splits_of(name, root, **places, **options):
        expected = None if options else dataset_spec(name).expected.get(split)
        try:
            records: RecordSet[Any] = load_dataset(
                name, root, split, on_error="skip", require_media=media != "none", **places, **options
            )
        except LookupError:
            raise
        except WeftDataError as error:
            found.append(SplitCheck(split, None, dataset_spec(name).expected.get(split), (str(error),)))
        else:
            found.append(_check_split(records, expected, media, sample))
    return DatasetCheck(name, os.fspath(root), tuple(found))


def _check_split(records: RecordSet[Any], expected: int | None, media: str, sample: int) -> SplitCheck:
    problems = _capped(records.skipped, "malformed rows")
    if expected is not None and len(records) != expected:
        problems.append(f"{records.split} must hold {expected} records, but holds {len(records)}.")
    checked, media_problems = _check_media(records, media, sample)
    faults, counts = (*problems, *media_problems), _class_counts(records)
    return SplitCheck(records.split, len(records), expected, faults, checked, counts, records.notes)


def _class_counts(records: RecordSet[Any]) -> dict[str, int]:
    """Records of each class, by label; classes of the data set that the split lacks have none."""
    counts = dict.fromkeys(records.classes, 0)
    if records.record_type == "classify":
        for record in sorted(records, key=lambda record: record.label):
            counts[record.class_name] = counts.get(record.class_name, 0) + 1
    return counts


def _check_media(records: RecordSet[Any], mode: str, sample: int) -> tuple[int, list[str]]:
    if mode == "none" or not records:
        return 0, []
    step = max(1, len(records) // max(1, sample))
    sampled = set(range(0, len(records), step))
    looked = range(len(records)) if mode == "all" else sorted(sampled)
    absent: dict[str, None] = {}
    damaged: dict[str, None] = {}
    seen: set[str] = set()
    for position in looked:
        for reference in records[position].media_refs():
            if reference.path in seen:
                continue
            seen.add(reference.path)
            if not reference.exists():
                absent[f"absent: {reference.uri}"] = None
            elif position in sampled and reference.kind == "image":
                try:
                    reference.image()
                except CorruptMediaError as error:
                    damaged[str(error)] = None
    return len(seen), [*_capped(absent, "absent files"), *_capped(damaged, "damaged files")]


def _capped(lines: Collection[str], what: str) -> list[str]:
    more = len(lines) - MAX_NAMED
    return [*lines][:MAX_NAMED] + ([f"... and {more} more {what}"] if more > 0 else [])
