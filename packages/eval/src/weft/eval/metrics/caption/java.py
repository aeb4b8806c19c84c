"""The user's own Java, which METEOR and SPICE run on."""

from __future__ import annotations

import shutil

from weft.eval.errors import MissingToolError


def java_command(java: str, program: str) -> str:
    """The path of the Java command of a name or path, which `program` needs.

    Raises:
        MissingToolError: It is not on the path.
    """
    command = shutil.which(java)
    if command is None:
        raise MissingToolError(
            f"{program} needs Java, but the command {java!r} is not on the path. Install a Java runtime, 17 for "
            "instance."
        )
    return command
