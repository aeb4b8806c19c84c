"""What a run is made of: its recipe, and the data and files that this reads. A result counts for these alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from weft.data.errors import MissingFileError
from weft.train.backbones.loading import planned_model
from weft.train.backbones.saved import saved_path
from weft.train.errors import RunError
from weft.train.output.files import sha256_of
from weft.train.output.run_files import read_json
from weft.train.preflight.stored import open_features
from weft.train.preflight.tasks import TaskData
from weft.train.recipe.files import read_yaml
from weft.train.recipe.kept import kept_text
from weft.train.recipe.plain_yaml import read_plain_yaml
from weft.train.recipe.training import Recipe
from weft.train.recipe.variables import expanded
from weft.train.runs.provenance import data_params

ORIGIN = "origin.json"
_SHOWN = 4
_DIGEST = re.compile(r"(sha256 [0-9a-f]{12})[0-9a-f]{52}")


def origin_of(recipe: Recipe, tasks: Mapping[str, TaskData]) -> dict[str, str]:
    """What a run reads beside its recipe; a model of the hub goes by its name and revision, which the recipe says.

    Args:
        recipe: The recipe.
        tasks: Its records.

    Returns:
        Name to a fingerprint that is the same wherever the files are: of the records of every split, of their media or
        stored features, and of each file and folder that the recipe names.

    Raises:
        RunError, WeftDataError: As `media_of`.
    """
    named = {key: f"content, sha256 {_digest(path)}" for key, path in _named(recipe) if path.exists()}
    return data_params(tasks) | media_of(recipe, tasks) | named


def media_of(recipe: Recipe, tasks: Mapping[str, TaskData]) -> dict[str, str]:
    """The part of `origin_of` that tells of media, or of the stored features that stand for them.

    Raises:
        RunError: If media are absent, with their number and the first of them.
        WeftDataError: If one of them cannot be reached.
    """
    found, features = dict[str, str](), None
    if any(task.data.features for task in recipe.tasks.values()):
        features = open_features(recipe, tasks, planned_model(recipe.backbone).config)
    for name, data in tasks.items():
        for role, records in data.splits.items():
            if features is None:
                try:
                    found[f"data.{name}.{role}.media"] = f"media, sha256 {records.media_fingerprint()}"
                except MissingFileError as error:
                    raise RunError(f"Task {name!r} cannot be run on its {role} split. {error}") from None
            else:
                images = (ref for record in records for ref in record.media_refs())
                found[f"data.{name}.{role}.features"] = f"features, sha256 {features.fingerprint(images)}"
    return found


def read_origin(folder: Path) -> dict[str, str]:
    """What was noted of a run at its start, in its folder.

    Raises:
        RunError: If the note is damaged.
    """
    return read_json(folder / ORIGIN)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe that makes a run what it is, under its path; without credentials."""
    values = flat(read_plain_yaml(kept_text(recipe)))
    values.pop("tracking.parent", None)
    return values


def other_recipe(folder: Path, recipe: Recipe) -> list[str]:
    """What differs between the recipe that the run in `folder` was started with and another one, in words."""
    path = folder / "recipe.yaml"
    kept = flat(read_yaml(path)) if path.is_file() else {}
    kept.pop("tracking.parent", None)
    return differences(kept, settings_of(recipe))


def other_data(folder: Path, origin: Mapping[str, str]) -> list[str]:
    """What differs between the data and files that the run in `folder` was started with and others, in words."""
    if not (folder / ORIGIN).is_file():
        return ["what data it is of is not noted in it"]
    return differences(read_origin(folder), origin)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of values, in words."""
    return [
        f"{key} was {_shown(before, key)} and is {_shown(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def in_words(differing: list[str]) -> str:
    """The first of some differences, and how many more there are."""
    more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    return "; ".join(differing[:_SHOWN]) + more


def check_data(folder: Path, origin: Mapping[str, str], argument: str, otherwise: str = "") -> None:
    """Refuse other data and files than the run in `folder` was started with; `argument` is what needs them.

    Raises:
        RunError: Naming what differs.
    """
    differing = other_data(folder, origin)
    if differing:
        raise RunError(
            f"{argument} needs the data and files that {folder} was started with, but {in_words(differing)}. Put them "
            f"back{otherwise}."
        )


def flat(values: Any, above: str = "") -> dict[str, Any]:
    """Every value of nested mappings, under its path."""
    if not isinstance(values, Mapping):
        return {above: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}.{key}" if above else str(key))
    return found


def _shown(values: Mapping[str, Any], key: str) -> str:
    """A value as messages show it: digests by their beginning."""
    if key not in values:
        return "absent"
    value = values[key]
    return _DIGEST.sub(r"\1", value) if isinstance(value, str) and _DIGEST.search(value) else repr(value)


def _named(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """The files and folders that a recipe names, beside its data."""
    backbone = recipe.backbone
    models = {"name": backbone.name, "language": backbone.language, "tokenizer": backbone.tokenizer}
    for key, name in models.items():
        if isinstance(name, str):
            yield f"files.backbone.{key}", Path(saved_path(name, f"backbone.{key}"))
    if backbone.weights is not None:
        yield "files.backbone.weights", Path(expanded(backbone.weights, "backbone.weights"))
    for name, task in recipe.tasks.items():
        if task.choose_from is not None:
            key = f"tasks.{name}.choose_from"
            yield f"files.{key}", Path(expanded(task.choose_from, key))


def _digest(path: Path) -> str:
    """Of the content of a file, or of all files of a folder but hidden ones."""
    if path.is_file():
        return _of_content(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()} {_of_content(file)}\0".encode())
    return digest.hexdigest()


def _of_content(path: Path) -> str:
    seen = path.stat()
    return _read(path, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


@lru_cache(maxsize=1024)
def _read(path: Path, *state: int) -> str:
    """The digest of a file in a state; the runs of a sweep name one backbone."""
    return sha256_of(path)
