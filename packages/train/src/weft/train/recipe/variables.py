"""Environment variables in recipes: only those that the user lets recipes read.

A recipe of somebody else could otherwise send any variable to any address. Allowed are names that begin with `WEFT_`,
and those in `WEFT_VARIABLES` of the environment, which is the user's setting and to which `--variable NAME` adds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from weft.data.sources.credentials import CUT
from weft.train.errors import RecipeError

SETTING = "WEFT_VARIABLES"
_OWN = "WEFT_"
_NAMED = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_NAME = re.compile(r"[A-Za-z_]\w*")


def allow(names: Iterable[str]) -> None:
    """Let recipes read environment variables, in this process and those that it starts.

    Raises:
        RecipeError: If one is no name of a variable.
    """
    names = list(names)
    for name in names:
        if not _NAME.fullmatch(name):
            raise RecipeError(
                f"`--variable` must be the name of an environment variable, but is {name!r}. Write for instance "
                "--variable SCRATCH."
            )
    os.environ[SETTING] = ",".join(sorted({*_allowed(), *names}))


def expanded(text: str, argument: str) -> str:
    """A path or an address with `~` and environment variables replaced; messages call it by its key in the recipe.

    Raises:
        RecipeError: If it names a variable that recipes must not read or that is not set, or holds `***` where a
            credential was cut out of it.
    """
    if CUT in text:
        raise RecipeError(
            f"`{argument}` must hold its credentials, but they were cut out of {text!r} when it was kept. Give it on "
            f"the command line, with a variable such as ${_OWN}PASSWORD in the place of {CUT}."
        )
    names = [plain or braced for plain, braced in _NAMED.findall(text)]
    refused = [name for name in names if not name.startswith(_OWN) and name not in _allowed()]
    if refused:
        raise RecipeError(
            f"`{argument}` must name only environment variables that recipes may read ({_OWN}* and those in "
            f"{SETTING}), but names {', '.join(refused)}. If you trust the recipe, add --variable {refused[0]}, "
            f"or name it in {SETTING}."
        )
    unset = [name for name in names if name not in os.environ]
    if unset:
        raise RecipeError(
            f"`{argument}` must name environment variables that are set, but {', '.join(unset)} is not, in {text!r}. "
            f"Set it: export {unset[0]}=..."
        )
    return os.path.expanduser(_NAMED.sub(lambda found: os.environ[found[1] or found[2]], text))


def expanded_options(options: Mapping[str, Any], argument: str) -> dict[str, Any]:
    """Options of a data set; texts in `storage_options` may name environment variables."""
    values = dict(options)
    if isinstance(values.get("storage_options"), Mapping):
        values["storage_options"] = _all(values["storage_options"], f"{argument}.storage_options")
    return values


def _all(value: Any, argument: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _all(part, f"{argument}.{name}") for name, part in value.items()}
    if isinstance(value, list):
        return [_all(part, argument) for part in value]
    return expanded(value, argument) if isinstance(value, str) else value


def _allowed() -> set[str]:
    return {name.strip() for name in os.environ.get(SETTING, "").split(",") if name.strip()}
