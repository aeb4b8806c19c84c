"""Saved models that recipes and commands name: a folder stays a folder, and code of others is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModel, PreTrainedModel

from weft.train.errors import RunError, is_mistake

MINIATURE = Path(__file__).parent / "miniature"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def saved_path(name: str, argument: str = "backbone") -> str:
    """Folder or hub id of a saved model; `miniature` is the one shipped with weft.

    A name that looks like a path is one: it is never looked up on the hub, where anybody may have taken it.

    Raises:
        RunError: If it looks like a path, and there is no such folder.
    """
    if name == "miniature":
        return str(MINIATURE)
    path = Path(name).expanduser()
    if path.exists():
        return str(path)
    if looks_like_path(name):
        raise RunError(
            f"`{argument}` must be a folder or a hub id such as 'organisation/model', but "
            f"{name!r} is a path, and there is nothing at {path.absolute()}. Correct the path, or "
            "start weft in the folder that it counts from."
        )
    return name


def looks_like_path(name: str) -> bool:
    """Whether a name is that of a place on this machine rather than one on the hub.

    >>> [looks_like_path(name) for name in ("./model", "runs/tiny/model", "~/x", "facebook/bart-base", "t5-base")]
    [True, True, True, False, False]
    """
    begins_here = "/" in name and Path(name).parts[:1] != () and Path(Path(name).parts[0]).is_dir()
    return not _HUB_ID.fullmatch(name) or begins_here


def load_saved(kind: Any, path: str, revision: str | None = None, **options: Any) -> Any:
    """Load a config, tokenizer or model with a class of `transformers`; code that comes with it is never run.

    Args:
        kind: A class with `from_pretrained`, such as `AutoModel`.
        path: What `saved_path` returned.
        revision: Commit or tag on the hub.
        **options: Further arguments of `from_pretrained`.

    Raises:
        OSError, ValueError: As `transformers` does; see `fault_of_loading`.
        ImportError: It needs a library that is absent.
    """
    import weft.core.composites  # noqa: F401  # makes weft's own model types known to `transformers`

    with foreign_values():
        return kind.from_pretrained(path, revision=revision, **{**options, "trust_remote_code": False})


def load_whole(
    kind: Any,
    path: str,
    revision: str | None = None,
    *,
    argument: str,
    key: str | None = None,
    **options: Any,
) -> Any:
    """Load a model as `load_saved` does, every weight of which was saved; `transformers` draws absent ones at random.

    For the message, `argument` is the key or option that names the model, and `key` the one that lets weights be drawn.

    Raises:
        RunError: If weights of the class are absent.
        OSError, ValueError, ImportError: As `load_saved` does.
    """
    model, found = load_saved(kind, path, revision, output_loading_info=True, **options)
    if absent := sorted(found["missing_keys"]):
        allow = f", or set {key}=true to begin with random ones" if key else ""
        raise RunError(
            f"`{argument}` must hold every weight of its model, but {path} lacks {len(absent)} of "
            f"{type(model).__name__}, such as {absent[0]}. Save the model whole, of the type that its config.json "
            f"names{allow}."
        )
    return model


@contextmanager
def foreign_values() -> Iterator[None]:
    """Let a library read what somebody else saved inside the `with` block.

    Raises:
        ValueError: In the place of whatever the library stumbled over; lack of memory, of a file or of a library says
            nothing of the values.
    """
    try:
        yield
    except (OSError, ValueError, ImportError, MemoryError):
        raise
    except Exception as error:
        if is_mistake(error) or "OutOfMemory" in type(error).__name__:
            raise
        line = next(iter(str(error).strip().split("\n")), "")
        raise ValueError(f"{type(error).__name__}: {line}") from error


def plain_model(name: str) -> Any:
    """A saved model of transformers that a command names, in the class that its config names.

    Raises:
        RunError: If it cannot be loaded.
    """
    path = saved_path(name, "--backbone")
    with as_saved("--backbone", name):
        config = load_saved(AutoConfig, path)
        named = getattr(transformers, str(next(iter(config.architectures or ()), "")), AutoModel)
        known = isinstance(named, type) and issubclass(named, PreTrainedModel)
        return load_whole(named if known else AutoModel, path, argument="--backbone")


@contextmanager
def as_saved(argument: str, name: str, among: str = "a folder", done: str = "loaded") -> Iterator[None]:
    """Say of a saved model that what is done with it inside the `with` block cannot be done.

    Args:
        argument: The key or option that names it.
        name: What the user calls it.
        among: What else it may be than a hub id.
        done: What is done with it.

    Raises:
        RunError: In the place of what `foreign_values` raises.
    """
    try:
        with foreign_values():
            yield
    except (OSError, ValueError) as error:
        if is_mistake(error):
            raise
        raise RunError(
            f"`{argument}` must be {among} or a hub id that can be reached, but {name!r} cannot be {done}: "
            f"{fault_of_loading(error)}"
        ) from error


def fault_of_loading(error: BaseException) -> str:
    """What `transformers` says of a model that does not load; an advice to run its code is left out."""
    text = str(error)
    if "trust_remote_code" in text or "custom code" in text:
        return (
            "it needs code of its own, which weft never runs. Take a model of a type that transformers knows, or "
            "convert it to one"
        )
    # What follows the first paragraph is advice about transformers.
    return " ".join(text.partition("\n\n")[0].split())
