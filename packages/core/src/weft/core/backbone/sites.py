"""Sites: the places of a backbone where a unit may act, each with its own address.

An address such as `text.decoder.3.cross_attention` names a site whatever the modules of the backbone are
called; checkpoints are keyed by addresses. A family (see `weft.core.backbone.families`) says which module an address
means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from weft.core.backbone.wiring import Wiring
from weft.core.errors import AddressError, unknown

Modality = Literal["text", "vision", "cross"]
Block = Literal["attention", "cross_attention", "ffn", "projection", "embedding", "logits"]
Position = Literal["", "first", "last", "only"]
BLOCKS: tuple[Block, ...] = get_args(Block)
SUBLAYERS: tuple[Block, ...] = ("attention", "cross_attention", "ffn")


@dataclass(frozen=True, slots=True)
class Site:
    """One place where a unit acts.

    Args:
        tower: Tower it belongs to, as users name it: `text` or `vision`.
        stack: Stack within the tower (`encoder`, `decoder`), or empty.
        layer: Index of the layer, or None outside the layers.
        block: Kind of sub-layer.
        wiring: The modules around it.
        in_width: Features of the input of its module.
        out_width: Features of the output of its module.
        role: Empty for the output of the sub-layer; otherwise one of its linear maps, such as `query`.
        position: Which of the layers it is that hand something to one another, for units that do.
        rows: Range of output features that belong to the role, where several roles are fused; or None.
        modality: What the rows of this site are, for routing and for sharing.
        packed: Whether the tokens of all rows are packed into one sequence, shape `(tokens, width)`.
        owned: Whether its rows are media of the batch's rows, whose owners must be known; see
            `weft.core.backbone.owners`.
        channels_first: Whether features lie before height and width, as convolutions have them; units see them last.
    """

    tower: str
    stack: str
    layer: int | None
    block: Block
    wiring: Wiring
    in_width: int
    out_width: int
    role: str = ""
    position: Position = ""
    rows: tuple[int, int] | None = None
    modality: Modality = "text"
    packed: bool = False
    owned: bool = False
    channels_first: bool = False

    @property
    def path(self) -> str:
        """Module whose output is transformed, from the root."""
        return self.wiring.path

    @property
    def address(self) -> str:
        """The name that does not change with the backbone's modules, such as `vision.7.ffn`."""
        layer = "" if self.layer is None else str(self.layer)
        words = (self.tower, self.stack, layer, *self.place)
        return ".".join(word for word in words if word)

    @property
    def place(self) -> tuple[str, ...]:
        """The words of its address within its layer."""
        return tuple(word for word in (self.block, self.role, self.position) if word)

    @property
    def is_first(self) -> bool:
        """Whether no layer hands anything to this one."""
        return self.position in ("first", "only")

    @property
    def is_last(self) -> bool:
        """Whether this layer hands nothing to another."""
        return self.position in ("last", "only")

    def rewired(self, **changes: Any) -> Site:
        """The same site with other fields of its wiring."""
        return replace(self, wiring=replace(self.wiring, **changes))

    @property
    def width(self) -> int:
        """Features that leave the site."""
        return self.out_width if self.rows is None else self.rows[1] - self.rows[0]


@dataclass(frozen=True)
class SiteMap:
    """Everything that a family found in one backbone.

    Args:
        family: Name of the family, nested ones joined by `+`.
        sites: All sites, sub-layers and linear maps, in the order of the backbone.
        towers: Tower to the module paths that make it up.
        components: Word to the module or parameter paths it stands for, such as `lm_head`.
        layers: Module path of a layer to the front of its addresses, such as `text.encoder.3`.
        default_towers: Towers adapted if a configuration names none.
        owners: The rule by which media belong to rows; see `weft.core.backbone.owners`. None where each row is one.
        maps: Linear maps outside the layers. The role of each is its name within its component, such as
            `projector.linear_1`.
        read_by_structure: Types of models that no family declares, whose layers were read by their structure.
        unread: Tower that holds no site to the reason.
    """

    family: str
    sites: tuple[Site, ...]
    towers: Mapping[str, tuple[str, ...]]
    components: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    default_towers: tuple[str, ...] = ()
    owners: Callable[..., Any] | None = None
    maps: tuple[Site, ...] = ()
    read_by_structure: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, address: str) -> Site:
        """The site of an address.

        Raises:
            AddressError: If there is no such site; the message names the nearest ones.
        """
        for site in self.sites:
            if site.address == address:
                return site
        raise AddressError(unknown("an address", address, (site.address for site in self.sites)))

    def select(
        self,
        *,
        towers: Iterable[str] | None = None,
        blocks: Iterable[str] | None = None,
        layers: Iterable[int] | None = None,
        roles: Iterable[str] = ("",),
        stacks: Iterable[str] | None = None,
    ) -> tuple[Site, ...]:
        """The sites that fit a choice by words.

        Args:
            towers: Towers; None stands for the family's default.
            blocks: Blocks that must exist; None stands for every sub-layer there is.
            layers: Indices of layers; None stands for all.
            roles: Roles that must exist; the empty one is the sub-layer's output.
            stacks: Stacks (`encoder`, `decoder`) to stay within; None stands for all.

        Raises:
            AddressError: If a word fits nothing.
        """
        chosen = self.check_towers(towers)
        within = [site for site in self.sites if site.tower in chosen]
        if not within or any(tower in self.unread for tower in chosen):
            reasons = "".join(f" {self.unread[tower]}" for tower in chosen if tower in self.unread)
            raise AddressError(
                f"`towers` must name towers whose layers are known, but those of {', '.join(chosen)} are not.{reasons} "
                f"Towers with sites are {', '.join(sorted({site.tower for site in self.sites})) or 'none'}."
            )
        within = _fitting("stacks", stacks, within, lambda site: site.stack or None)
        if blocks is None:
            within = [site for site in within if site.block in SUBLAYERS]
        within = _fitting("blocks", blocks, within, lambda site: site.block)
        within = _fitting("linears", roles, within, lambda site: site.role)
        return tuple(_fitting("layers", layers, within, lambda site: site.layer))

    def outside(self, components: Iterable[str]) -> tuple[Site, ...]:
        """Linear maps outside the layers, by components, such as `projector`, or names of single maps.

        Raises:
            AddressError: If a word fits none.
        """
        chosen: dict[str, Site] = {}
        for word in components:
            found = self.maps_of(word)
            if not found:
                known = [word for word in self.components if self.maps_of(word)]
                raise AddressError(
                    unknown("`components`", word, [*known, *(site.role for site in self.maps)])
                )
            chosen.update({site.address: site for site in found})
        return tuple(site for site in self.maps if site.address in chosen)

    def maps_of(self, word: str) -> tuple[Site, ...]:
        """The linear maps outside the layers that a word means, a component or the name of a single map."""
        fronts = tuple(f"{path}." for path in self.components.get(word, ()))
        return tuple(site for site in self.maps if site.role == word or f"{site.path}.".startswith(fronts))

    def check_towers(self, towers: Iterable[str] | None) -> tuple[str, ...]:
        """The towers meant, the family's default for None.

        Raises:
            AddressError: If the backbone has no such tower.
        """
        chosen = self.default_towers if towers is None else tuple(towers)
        _all_present("towers", set(chosen), set(self.towers))
        return chosen


def _fitting(
    argument: str, words: Iterable[Any] | None, sites: list[Site], word_of: Callable[[Site], Any]
) -> list[Site]:
    """The sites whose word is among some words, each of which some site must have; None stands for all."""
    if words is None:
        return sites
    wanted, known = set(words), {word_of(site) for site in sites} - {None}
    _all_present(argument, {str(word) for word in wanted}, {str(word) for word in known})
    return [site for site in sites if word_of(site) in wanted]


def _all_present(argument: str, wanted: set[str], known: set[str]) -> None:
    missing = sorted(wanted - known)
    if missing:
        faults = [unknown(f"`{argument}`", name, known - {""}) for name in missing]
        raise AddressError(" ".join(faults))
