"""Which library is absent, where something of a model's folder could not be loaded."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

_MODULES = {
    "torchvision": "torchvision",
    "num2words": "num2words",
    "sentencepiece": "sentencepiece",
    "tiktoken": "tiktoken",
    "protobuf": "google.protobuf",
    "pillow": "PIL",
}


def missing_library(error: BaseException, path: str) -> str | None:
    """The library whose absence an error tells of, as pip calls it.

    An error of the import names it. Others tell of it in a sentence that may hold the folder as well, which is no
    library; nor is one meant that is installed.

    Args:
        error: What was raised.
        path: Folder or hub id that was read.

    Returns:
        The name, or None if the error tells of none.
    """
    source: BaseException | None = error
    while source is not None:
        if isinstance(source, ModuleNotFoundError) and source.name:
            return source.name.partition(".")[0]
        source = source.__cause__
    text = str(error).replace(str(Path(path).resolve()), "").replace(path, "").lower()
    for package, module in _MODULES.items():
        if re.search(rf"(?<![\w/\\.-]){package}(?![\w/\\-])", text) and not _installed(module):
            return package
    return None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
