"""Write the tables of docs/families.md: model types, as the installed transformers has them, and units by family."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers

from weft.core.backbone.family import Family, Fused, Stack, families
from weft.core.backbone.module_paths import Paths, alternatives, below
from weft.core.backbone.needs import check_needs
from weft.core.backbone.owners import equal_media, media_by_grid, media_by_tiles
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import Site, SiteMap
from weft.core.backbone.wiring import Residual, Wiring
from weft.core.errors import BackboneError, WeftError
from weft.core.testing.whole_mapping import mapped_types, shallow_model
from weft.core.unit.protocol import UnitConfig, units

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
PLACE = re.compile(r"(?<=<!-- types: begin -->\n).*(?=<!-- types: end -->)", re.DOTALL)
UNITS_PLACE = re.compile(r"(?<=<!-- units: begin -->\n).*(?=<!-- units: end -->)", re.DOTALL)
LETTERS = {"attention": "a", "cross_attention": "c", "ffn": "f", "embedding": "p"}
HEAD = ("type", "families", "text", "vision", "outside", "owners of images")
RULES: dict[Any, str] = {
    equal_media: "equal numbers",
    media_by_grid: "grids",
    media_by_tiles: "tiles",
    None: "one a row",
}


def table() -> str:
    """The table as Markdown: a line for each type, with its sites or what is missing."""
    body = _markdown(HEAD, [row(name) for name in mapped_types()])
    return f"\nWith transformers {transformers.__version__}:\n\n{body}\n\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *rows))


def units_table() -> str:
    """The table of units by family as Markdown, from declared wiring: equal rows are one, and so are equal columns."""
    stacks = {name: declared_sites(family, stack) for name, family, stack in _declared_stacks()}
    cells = {
        method: tuple(acts_at(config.example(), sites) for sites in stacks.values())
        for method, config in units().items()
    }
    columns = _alike(dict(zip(stacks, zip(*cells.values(), strict=True), strict=True)))
    rows = _alike({method: tuple(column[i] for column in columns) for i, method in enumerate(cells)})
    body = [(", ".join(f"`{name}`" for name in names), *found) for found, names in rows.items()]
    head = ("unit", *("<br>".join(names) for names in columns.values()))
    return f"\n{_markdown(head, [line for line in body if any(line[1:])])}\n\n"


def _alike(lines: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], list[str]]:
    """Each line once, with the names that have it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, line in lines.items():
        found.setdefault(line, []).append(name)
    return found


def _declared_stacks() -> Iterator[tuple[str, Family, Stack]]:
    """The stacks whose blocks a family declares, named after the family, or its type where two have one name."""
    found = list({id(family): family for family in families().values() if family.stacks}.values())
    for family in found:
        several = sum(other.name == family.name for other in found) > 1
        name = next(iter(family.model_types)) if several else family.name
        for stack in family.stacks:
            if callable(stack.blocks):  # read from each layer, not declared
                continue
            word = stack.name or (stack.tower if len(family.stacks) > 1 else "")
            yield f"{name} {word}".strip(), family, stack


def declared_sites(family: Family, stack: Stack) -> SiteMap:
    """The sites of one layer as a family declares them, without a model; all widths are one.

    Args:
        family: The family.
        stack: One of its stacks, whose blocks are data.
    """

    def path(paths: Paths | None) -> Any:
        return None if paths is None else below(layer, alternatives(paths)[0])

    layer = below(alternatives(stack.layers)[0], "0")
    common: dict[str, Any] = {"tower": stack.tower, "stack": stack.name, "in_width": 96, "out_width": 96}
    sites = [
        Site(block=place.block, layer=None, wiring=Wiring("place", whole=place.whole), **common)
        for place in family.places
        if (place.tower, place.name) == (stack.tower, stack.name)
    ]
    assert not callable(stack.blocks)
    for block, spec in stack.blocks.items():
        own = {**common, "block": block, "layer": 0, "modality": stack.modality, "packed": stack.packed}
        residual = Residual(path(spec.before), path(spec.behind), path(spec.norm))
        sites.append(
            Site(wiring=Wiring(path(spec.output), path(spec.source or spec.output), residual), **own)
        )
        for role, where in spec.linears.items():
            fused = where if isinstance(where, Fused) else Fused(where, 0, 1)
            rows = None if fused.count == 1 else (0, 96 // fused.count)
            sites.append(Site(wiring=Wiring(path(fused.path)), role=role, rows=rows, **own))
    towers = {stack.tower: ("tower",)}
    return SiteMap(family.name, tuple(sites), towers, layers={layer: "0"}, default_towers=(stack.tower,))


def acts_at(config: UnitConfig, sites: SiteMap) -> str:
    """Letters of the blocks where a unit finds what it needs."""
    found = []
    try:
        for site in config.select(sites):
            check_needs(config.method, config.needs, [site], sites.family)
            found.append("l" if site.path in sites.layers else LETTERS[site.block])
    except WeftError:
        return ""
    return " ".join(sorted(set(found), key="placf".index))


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
    text = UNITS_PLACE.sub(lambda _: units_table(), PLACE.sub(lambda _: table(), text))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
