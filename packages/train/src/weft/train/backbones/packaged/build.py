"""Encoders that `weft encoder build` makes, by name."""

from __future__ import annotations

from pathlib import Path

from weft.data.processes.atomic import whole_folder
from weft.train.backbones.packaged.dinov2 import build_dinov2
from weft.train.backbones.packaged.dual import Projection, build_dual
from weft.train.errors import RunError, near
from weft.train.output.folders import check_writable

DINOV2 = "dinov2-small"
ENCODERS = (*(f"efficientnet-lite{size}+minilm" for size in range(3)), DINOV2)
"""Their names."""


def build_encoder(name: str, output: Path, projection: Projection = "linear") -> None:
    """Make one of `ENCODERS` of installed packages and save it in a new folder, whole or not at all.

    Raises:
        RunError: If the name is unknown, the folder is there, or a package is absent or holds other files.
    """
    if name not in ENCODERS:
        raise RunError(
            f"`NAME` must be an encoder that can be built, but is {name!r}. {near(name, ENCODERS)}"
        )
    if name == DINOV2 and projection != "linear":
        raise RunError(f"`--projection` is for encoders with a text side, but {name} has none. Leave it out.")
    check_writable(output, "OUTPUT")
    if output.exists():
        raise RunError(
            f"`OUTPUT` must be a new folder, but {output} exists. Choose another name, or remove it."
        )
    with whole_folder(output) as folder:
        if name == DINOV2:
            build_dinov2(folder)
        else:
            build_dual(ENCODERS.index(name), projection, folder)
