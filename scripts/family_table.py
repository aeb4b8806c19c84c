"""Write the table of model types into docs/families.md, as the installed transformers has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import transformers

from weft.core.backbone.owners import equal_media, media_by_grid, media_by_tiles
from weft.core.backbone.resolving import resolve
from weft.core.errors import BackboneError
from weft.core.testing.whole_mapping import mapped_types, shallow_model

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
PLACE = re.compile(r"(?<=<!-- types: begin -->\n).*(?=<!-- types: end -->)", re.DOTALL)
HEAD = ("type", "families", "text", "vision", "outside", "owners of images")
RULES: dict[Any, str] = {
    equal_media: "equal numbers",
    media_by_grid: "grids",
    media_by_tiles: "tiles",
    None: "one a row",
}


def table() -> str:
    """The table as Markdown: a line for each type, with its sites or what is missing."""
    lines = [HEAD, ("---",) * len(HEAD), *(row(name) for name in mapped_types())]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"\nWith transformers {transformers.__version__}:\n\n{body}\n\n"


def row(name: str) -> tuple[str, ...]:
    """The line of one type."""
    try:
        model = shallow_model(name)
    except Exception as error:  # of transformers: a library that is missing, or a config without a default
        needs = next(iter(re.findall(r"requires the (\w+) library", str(error))), "a config of its own")
        return f"`{name}`", f"not looked at: needs {needs}", "", "", "", ""
    try:
        sites = resolve(model)
    except BackboneError as error:
        missing = str(error).partition("Nor can its structure be read: ")[2].partition(" A family from")[0]
        return f"`{name}`", f"none: {missing}", "", "", "", ""
    return (
        f"`{name}`",
        " + ".join(sites.family.split("+")),
        *(_kinds(sites, tower) for tower in ("text", "vision")),
        ", ".join(word for word in sites.components if sites.maps_of(word)),
        RULES.get(sites.owners, "to be said") if any(site.tower == "vision" for site in sites.sites) else "",
    )


def _kinds(sites: Any, tower: str) -> str:
    """Blocks of a tower and the roles of their maps."""
    found: dict[str, list[str]] = {}
    for site in sites.sites:
        if site.tower == tower and site.layer is not None:
            roles = found.setdefault(site.block, [])
            if site.role and site.role not in roles:
                roles.append(site.role)
    return "; ".join(f"{block}: {', '.join(roles)}" if roles else block for block, roles in found.items())


def main() -> None:
    """Put the table in its place."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(PLACE.sub(lambda _: table(), text), encoding="utf-8")


if __name__ == "__main__":
    main()
