"""Write the licences of everything that weft's packages and their extras need, as installed here.

    python scripts/licences.py docs/licences.md

A licence that is not among those known to go with weft's own ends it with code 1.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PACKAGES = ("weft-kernels", "weft-core", "weft-data", "weft-eval", "weft-train")
# What goes with weft's own licence, MIT, when it is installed beside it and not shipped with it.
KNOWN = re.compile(
    r"MIT|BSD|Apache|Python|PSF|ISC|HPND|MPL|Unlicense|Zlib|CC0|Historical|0BSD|Boost|Public Domain"
)
# Licences that say more than the file of a distribution does, and why they may stand here.
ARGUED = {
    "docopt": "MIT, by its file LICENSE-MIT",
    "huey": "MIT, by its file LICENSE",
    "pycocoevalcap": "BSD-2-Clause, by the licence of its repository",
    "torchcodec": "BSD-3-Clause, by its file LICENSE",
    "skops": "MIT, by its file LICENSE",
    "num2words": "LGPL: only installed beside weft, for processors that speak numbers",
}
HEAD = """# Licences

What weft's five packages and their extras need, as installed by the pins of `constraints.txt`; written by
`python -m nox -s audit`. None of it is shipped with weft, whose own licence is MIT.

| distribution | version | licence |
|---|---|---|
"""


def needed() -> dict[str, Distribution]:
    """Every distribution that the packages need, by name; extras of the packages themselves are included."""
    found: dict[str, Distribution] = {}
    waiting = [(name, "") for name in PACKAGES]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        try:
            made = distribution(name)
        except PackageNotFoundError:
            continue  # for another system, or an extra that is not installed
        if name not in PACKAGES:
            found[made.metadata["Name"]] = made
        own = made.metadata.get_all("Provides-Extra") or [] if name in PACKAGES else [extra]
        for line in made.requires or []:
            requirement = Requirement(line)
            wanted = [each for each in {*own, ""} - {"test"} if _holds(requirement, each)]
            for inner in ("", *requirement.extras) if wanted else ():
                key = (requirement.name.lower().replace("_", "-"), inner)
                if key not in seen:
                    seen.add(key)
                    waiting.append(key)
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def licence_of(made: Distribution) -> str:
    """What a distribution says of its licence: its expression, its classifiers, or its text's first line."""
    told = made.metadata
    classifiers = [
        line.rpartition(" :: ")[2] for line in told.get_all("Classifier") or [] if "License ::" in line
    ]
    named = [line for line in classifiers if line != "OSI Approved"]
    text = (told.get("License") or "").strip().split("\n")[0][:60]
    return told.get("License-Expression") or ", ".join(named) or text or "not stated"


def _holds(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def main() -> int:
    """Write the table, and name what is not known."""
    rows = {name: (made.version, licence_of(made)) for name, made in needed().items()}
    rows = {name: (version, ARGUED.get(name, licence)) for name, (version, licence) in rows.items()}
    lines = [
        f"| {name} | {version} | {licence.replace('|', '/')} |\n" for name, (version, licence) in rows.items()
    ]
    Path(sys.argv[1]).write_text(HEAD + "".join(lines), encoding="utf-8")
    odd = [name for name, (_, licence) in rows.items() if name not in ARGUED and not KNOWN.search(licence)]
    print(f"{len(rows)} distributions, {len(odd)} of a licence that is not known: {', '.join(odd) or 'none'}")
    return int(bool(odd))


if __name__ == "__main__":
    sys.exit(main())
