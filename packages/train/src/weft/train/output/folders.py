"""Folders that a command writes into: its own alone, made new or refused with one message, before any long work."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from weft.data.processes.locks import held
from weft.train.errors import RunError

RUN_MARKER = ".weft-run"
DEMO_MARKER = ".weft-demo"
_TEXTS = {
    RUN_MARKER: "This folder was made by `weft train`, and `--overwrite` may remove all of it.\n",
    DEMO_MARKER: "This folder was made by `weft demo`, and the next demo here removes all of it.\n",
}
_NOT_PART_OF_A_RUN = (RUN_MARKER, DEMO_MARKER, "mlflow.db")


@contextmanager
def claimed(folder: Path, argument: str, *, otherwise: str) -> Iterator[None]:
    """Keep every other process from writing a folder inside the `with` block; the folder itself need not be there.

    Args:
        folder: The folder of a run, a sweep or a demo.
        argument: What the user calls it.
        otherwise: What can be done instead of waiting, as a part of the message.

    Raises:
        InUseError: If another process has it.
        RunError: If the folder that it is in cannot be written.
    """
    place = folder.resolve()
    above = place.parent
    check_writable(folder.parent, "output")
    made = [path for path in (above, *above.parents) if not path.exists()]
    with ExitStack() as stack:
        try:
            above.mkdir(parents=True, exist_ok=True)
            lock = held(above / f".{place.name}.lock", f"`{argument}` ({folder})", advice=otherwise)
            stack.enter_context(lock)
        except OSError as error:
            raise _unwritable(folder, error) from None
        try:
            yield
        finally:
            stack.close()
            for path in made:
                with suppress(OSError):
                    path.rmdir()  # a command that was refused leaves nothing


def require_new(folder: Path, *, resumes: bool, overwrite: bool = False) -> None:
    """Refuse a folder of a run that is there already, or, where it is to be overwritten, that must not be removed.

    Raises:
        RunError: If there is such a folder or file.
    """
    if overwrite:
        require_made(folder, RUN_MARKER, "name")
    elif folder.exists() or folder.is_symlink():
        resume = "--resume to resume it, " if resumes else ""
        raise RunError(
            f"`name` must be new in {str(folder.parent)!r}, but {folder} exists. Use {resume}--overwrite to start "
            "again, or name=... for another run."
        )


def require_outside(folder: Path, other: Path | None, argument: str) -> None:
    """Refuse what should outlive a run, but is in its folder and would be removed with it.

    Raises:
        RunError: If it is the folder of the run, or is in it.
    """
    if other is not None and other.resolve().is_relative_to(folder.resolve()):
        raise RunError(
            f"`{argument}` must lie outside of the run's own folder, but {other} lies in {folder}. Choose another "
            f"name=... or another {argument}."
        )


def require_made(folder: Path, marker: str, argument: str) -> None:
    """Refuse to remove a folder that weft did not make, or that holds more than weft put there.

    Args:
        folder: What would be removed; it need not be there.
        marker: Name of the file that weft writes into such folders.
        argument: What the user calls it.

    Raises:
        RunError: If it must not be removed.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        fault = "is no folder"
    elif (folder / marker).is_symlink() or not (folder / marker).is_file():
        fault = f"has no {marker}"
    elif Path.cwd().is_relative_to(folder.resolve()):
        fault = "holds the current folder"
    elif marker == RUN_MARKER and (foreign := _foreign(folder)) is not None:
        fault = f"holds {foreign.relative_to(folder)}"
    else:
        return
    raise RunError(
        f"`{argument}` must be a folder that weft made, and made alone, to be removed, but {folder} {fault}. Choose "
        "another one, or move it away yourself."
    )


def _foreign(folder: Path) -> Path | None:
    """Something in the folder of a run that is no part of it, such as another run, or a tracking store."""
    own = folder / RUN_MARKER
    found = (path for name in _NOT_PART_OF_A_RUN for path in folder.rglob(name))
    return next((path for path in found if path != own), None)


def make_run_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Make the folder of a run with its first files; an earlier run there is moved aside first, and then removed.

    Raises:
        RunError: If it cannot be made, or what is there is no run; nothing half made is left.
    """
    make_fresh(folder, RUN_MARKER, "name", files)


def make_fresh(folder: Path, marker: str, argument: str, files: Mapping[str, str] | None = None) -> None:
    """Put a new folder in the place of one that weft made before.

    Args:
        folder: The folder.
        marker: See `require_made`.
        argument: What the user calls it.
        files: Name to text of what it holds from the first moment on.

    Raises:
        RunError: As `make_run_folder`.
    """
    require_made(folder, marker, argument)
    number = uuid.uuid4().hex[:8]
    partial, removed = (folder.with_name(f".{folder.name}.{word}-{number}") for word in ("new", "removed"))
    try:
        partial.mkdir(parents=True)
        for name, text in {marker: _TEXTS[marker], **(files or {})}.items():
            (partial / name).write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(removed)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if removed.exists() and not folder.exists():
            removed.rename(folder)
        raise _unwritable(folder, error) from None
    for left in folder.parent.glob(f".{folder.name}.removed-*"):
        # Also what an earlier attempt was killed over.
        if not left.is_symlink() and (left / marker).is_file():
            shutil.rmtree(left, ignore_errors=True)


def check_writable(folder: Path, argument: str) -> None:
    """Try to write where a folder is or would be made; nothing is left there.

    Raises:
        RunError: If it cannot be made or written.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise RunError(
            f"`{argument}` must be a folder that can be written, but {folder} is not: {error}. Name another."
        ) from None


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(f"`output` must be a folder that can be written, but {folder} cannot be made: {error}")
