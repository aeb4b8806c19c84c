"""Files of adapters: written whole or not at all; read without running anything, and checked, whoever wrote them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from weft.core.errors import CheckpointError

_AGAIN = "Copy or save it again."
# Kinds of numbers that are trained, by their names in a file.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@contextlib.contextmanager
def written_together(folder: str | Path, *names: str) -> Iterator[list[Path]]:
    """Where to write some files that belong together; they get their names once all are written and on the disk.

    The folder is made if it is missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f".{name}.part" for name in names]
    try:
        yield parts
        for part in parts:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        for part, name in zip(parts, names, strict=True):
            os.replace(part, folder / name)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def check_present(folder: Path, names: Collection[str], then: str, *, argument: str = "path") -> None:
    """Refuse a folder that lacks one of some files; the message ends with what to do then.

    Raises:
        CheckpointError: With the names of those that it lacks.
    """
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(
            f"`{argument}` must hold {' and '.join(names)}, but {' and '.join(absent)} is not in {folder}. {then}"
        )


def read_words(file: Path, needed: Collection[str] = (), *, argument: str = "path") -> dict[str, Any]:
    """The object that a JSON file holds, with the keys that it needs; messages name the argument that led to the file.

    Raises:
        CheckpointError: If it cannot be read, is not JSON or not an object, or lacks a key.
    """
    try:
        words = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"`{argument}` must hold whole files, but {file} is not JSON: {error}. {_AGAIN}"
        ) from None
    if not isinstance(words, dict):
        raise CheckpointError(
            f"`{argument}` must hold an object in {file.name}, but {file} holds a {type(words).__name__}. {_AGAIN}"
        )
    if lacking := [key for key in needed if key not in words]:
        raise CheckpointError(
            f"`{argument}` must hold a {file.name} with {', '.join(needed)}, but {file} lacks {', '.join(lacking)}. "
            f"{_AGAIN}"
        )
    return words


def open_tensors(file: Path, *, argument: str = "path") -> Any:
    """A safetensors file, of which tensors are read one by one onto the CPU.

    Raises:
        CheckpointError: If it is none, or is cut.
    """
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"`{argument}` must hold whole files, but {file} cannot be read: {error}. {_AGAIN}"
        ) from None


def read_tensors(file: Path, *, argument: str = "path") -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; they are numbers, and finite.

    Raises:
        CheckpointError: If it cannot be read, or a tensor is complex or holds NaN or infinity.
    """
    with open_tensors(file, argument=argument) as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
    check_tensors(tensors.items(), {}, file, argument=argument)
    return tensors


def check_tensors(
    tensors: Iterable[tuple[str, Any]], targets: Mapping[str, Tensor], file: Path, *, argument: str = "path"
) -> None:
    """Refuse tensors, by name, that no training can have left.

    Those that will be copied into `targets` are of their kind; names without one may be of any real numbers.

    Raises:
        CheckpointError: With every fault.
    """
    faults = [
        f"{name} {fault}"
        for name, value in tensors
        if (fault := tensor_fault(value, targets.get(name))) is not None
    ]
    if faults:
        more = f"\nand {len(faults) - 10} more" if len(faults) > 10 else ""
        raise CheckpointError(
            f"`{argument}` must hold finite numbers of the model's kinds, but {file} does not:\n"
            + "\n".join(faults[:10])
            + f"{more}\nTake the file of a training that did not diverge, or save it again."
        )


def tensor_fault(value: Any, like: Tensor | None = None) -> str | None:
    """What is wrong with a stored tensor that is to be copied into one like `like`; None if nothing is."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return f"is not a plain tensor but {getattr(value, 'layout', type(value).__name__)}"
    if value.is_complex():
        return f"is of complex numbers ({value.dtype})"
    floats = FLOATS.values()
    if value.is_floating_point() and value.dtype not in floats:
        return f"is {value.dtype}, in which nothing is trained"
    if (
        like is not None
        and value.dtype != like.dtype
        and not (value.dtype in floats and like.dtype in floats)
    ):
        return f"is {value.dtype}, where the model has {like.dtype}"
    if value.is_floating_point() and (bad := int((~torch.isfinite(value)).sum())):
        return f"is not finite in {bad} of {value.numel()} places"
    return None
