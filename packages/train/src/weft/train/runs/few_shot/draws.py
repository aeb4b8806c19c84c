"""The records of a few-shot recipe, and the draws from them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weft.data import base_to_new, draw_few_shot, load_dataset
from weft.data.sampling.few_shot import VALIDATION_SHOTS
from weft.train.errors import RunError
from weft.train.recipe.few_shot import FewShotDataSection, FewShotRecipe, SourceSection, TransferSection
from weft.train.recipe.variables import expanded, expanded_options

_NAMED = 5


@dataclass(frozen=True)
class Records:
    """The splits of a recipe.

    Attributes:
        train: What shots are drawn from.
        validation: What validation images are drawn from, or None for the rest of `train`.
        test: Test set by name: `test`, or `base` and `new`, and the shifted ones.
        transfer: Further test sets of other classes by name.
        class_names: Names by label, as prompts write them.
        num_base: Number of classes that heads are fitted on; all but in `base_to_new`.
    """

    train: Any
    validation: Any | None
    test: dict[str, Any]
    transfer: dict[str, Any]
    class_names: list[str]
    num_base: int


def begin(recipe: FewShotRecipe) -> dict[str, Records]:
    """Take the threads that a recipe asks for, and load the annotations of its parts, by their names.

    Raises:
        RunError: As `load_records`.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    return {name: load_records(part) for name, part in recipe.parts().items()}


def load_records(recipe: FewShotRecipe) -> Records:
    """Load the annotations; images stay closed.

    Raises:
        RunError: A split holds a class that the training split lacks, or a split is empty.
        WeftDataError: Files are missing or malformed.
    """
    section = recipe.data
    train = _load(section, section.train)
    validation = None if section.validation is None else _load(section, section.validation)
    if section.test is None:
        train, test = _set_aside(train)
    else:
        test = _load(section, section.test)
    names = class_names_of(train, section)
    if section.num_classes not in (None, len(names)):
        raise RunError(
            f"`data.num_classes` must be that of {section.name!r} ({len(names)}), but is {section.num_classes}. "
            "Correct it, or check the data."
        )
    for split in (test, *([] if validation is None else [validation])):
        unknown = {record.label: record.class_name for record in split if record.label >= len(names)}
        if unknown:
            raise RunError(
                f"The split {split.split!r} of {section.name!r} must hold classes of the training split alone, but "
                f"also holds {_named(unknown)}. Check the split files."
            )
    tests = {"test": test}
    num_base = len(names)
    if recipe.protocol == "base_to_new":
        base, new = base_to_new(test)
        tests, num_base = {"base": base, "new": new}, len({record.label for record in base})
    for name, shifted in recipe.shifted.items():
        tests[name] = _load(shifted, shifted.split)
    transfer = {name: _load(other, other.split) for name, other in recipe.transfer.items()}
    return Records(train, validation, tests, transfer, names, num_base)


def draw(records: Records, shots: int, seed: int) -> tuple[Any, Any]:
    """The training and validation records of one draw; of the base classes alone in `base_to_new`.

    The draw is made before classes are left out, so that it equals the published ones.
    """
    drawn = draw_few_shot(records.train, records.validation, shots=shots, seed=seed)
    train = records.train.select(drawn.train)
    if records.validation is not None:
        validation = records.validation.select(drawn.validation)
    else:
        taken = set(drawn.train)
        rest = records.train.select([k for k in range(len(records.train)) if k not in taken])
        if {r.label for r in rest} != {r.label for r in records.train}:
            raise RunError(
                f"`data.validation` must be a split where {shots} shots take every training image of a class, but is "
                "null. Name a split, take fewer shots, or set selection=none."
            )
        validation = rest.select(draw_few_shot(rest, shots=min(shots, VALIDATION_SHOTS), seed=seed).train)
    base = records.num_base
    return tuple(part.filter(lambda record: record.label < base) for part in (train, validation))


def read_class_texts(path: str | None) -> dict[str, list[str]] | None:
    """Texts about classes, from the JSON file that a recipe's `class_texts` names; environment variables are expanded.

    Raises:
        RunError: There is no such file, or it holds anything but lists of texts by name.
    """
    if path is None:
        return None
    file = Path(expanded(path, "class_texts"))
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"`class_texts` must be a JSON file, but {file} cannot be read: {error}. Write names of classes to "
            "lists of texts."
        ) from None
    is_list = isinstance(found, dict) and all(isinstance(texts, list) for texts in found.values())
    if not is_list or not all(isinstance(text, str) for texts in found.values() for text in texts):
        raise RunError(
            f"`class_texts` must hold names of classes with a list of texts each, but {file} does not. Write for "
            'instance {"cat": ["A cat has whiskers.", "A small furry animal."]}.'
        )
    return dict(found)


def check_images(records: Records, draws: Iterable[tuple[Any, Any]]) -> None:
    """Require the files of all images that a run reads, before it reads any; of the training split, what was drawn.

    Raises:
        RunError: Images are absent; the first ones are named.
    """
    read = [record for pair in draws for part in pair for record in part]
    read += [record for split in (*records.test.values(), *records.transfer.values()) for record in split]
    images = {record.image.place: record.image for record in read}
    absent = sorted(image.uri for image in images.values() if not image.exists())
    if absent:
        raise RunError(
            f"Every image of the draws and of the test sets must be there, but {len(absent):,} of {len(images):,} are "
            f"not: {', '.join(absent[:_NAMED])}{', …' if len(absent) > _NAMED else ''}. `weft data check "
            f"{records.train.name}` lists what a data set needs."
        )


def class_names_of(records: Any, section: FewShotDataSection | TransferSection) -> list[str]:
    """Names by label as prompts write them, with the replacements of a section.

    Raises:
        RunError: Labels have gaps, or a replaced name does not exist.
    """
    labels = sorted({record.label for record in records})
    absent = {label: name for label, name in enumerate(records.classes) if label not in set(labels)}
    if absent:
        raise RunError(
            f"The split {records.split!r} of {section.name!r} must hold records of every class, but has none of "
            f"{_named(absent)}. Take these classes out of the other splits, or give `options.classes`."
        )
    if labels != list(range(len(labels))):
        raise RunError(
            f"Labels of {section.name!r} must count from 0 without gaps, but the split {records.split!r} holds "
            f"{len(labels)} of up to {labels[-1]}. Check its options."
        )
    names = list(records.class_names)
    unknown = sorted(set(section.class_names) - set(names))
    if unknown:
        raise RunError(
            f"`data.class_names` must rename classes of {section.name!r}, but {unknown[0]!r} is none. Its first "
            f"ones are {', '.join(names[:5])}."
        )
    return [section.class_names.get(name, name) for name in names]


def _named(classes: Mapping[int, str]) -> str:
    """The first of some classes, by label."""
    shown = [f"{name!r} (label {label})" for label, name in sorted(classes.items())[:_NAMED]]
    return ", ".join(shown) + (f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else "")


def _load(section: SourceSection, split: str) -> Any:
    root = None if section.root is None else expanded(section.root, "data.root")
    options = expanded_options(section.options, "data.options")
    records = load_dataset(section.name, root=root, split=split, **options)
    if len(records) == 0 or records.record_type != "classify":
        raise RunError(
            f"The split {split!r} of data set {section.name!r} must hold labelled images, but holds {len(records)} "
            f"records of type {records.record_type!r}. Choose a classification data set; see `weft data list`."
        )
    return records


def _set_aside(records: Any) -> tuple[Any, Any]:
    """Every second image of each class, in file order, for the test."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        by_class[record.label].append(place)
    test = {place for places in by_class.values() for place in places[1::2]}
    kept = [place for place in range(len(records)) if place not in test]
    return records.select(kept), records.select(sorted(test)).with_records(
        [records[place] for place in sorted(test)], split=f"{records.split}, every second image"
    )
