"""Families: which module of a backbone each address means, declared once per model family.

A family is data. It names alternatives where releases of transformers differ, and the first that exists is
taken. A backbone made of other backbones (`nested`) takes their sites over with its own prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from weft.core.backbone.module_paths import Paths
from weft.core.backbone.owners import OwnersRule
from weft.core.backbone.sites import Block, Modality
from weft.core.backbone.wiring import Reads
from weft.core.errors import BackboneError
from weft.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Fused:
    """One of several linear maps that are in one module, from the layer, one after the other.

    `index` is which of the equal parts of its output.
    """

    path: Paths
    index: int
    count: int = 3


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One sub-layer of a layer.

    Args:
        output: Module whose output is the sub-layer's output before dropout and residual, from the layer.
        source: Module whose input is the sub-layer's input, from the layer.
        before: Module whose input is the residual stream before the sub-layer and its norm, from the layer.
        behind: Module that returns the stream with the sub-layer's output in it, from the layer; the empty path is
            the layer.
        norm: Norm that reads the sum of the two, where one follows it, from the layer.
        linears: Role to the linear map of that role.
        width: Module whose output width is the sub-layer's, where `output` itself does not tell.
        optional: Whether some layers lack the sub-layer.
        entry: Module that takes the sub-layer's input in, where that may have another width than its output; units that
            read the input are refused where it has.
    """

    output: Paths
    source: Paths | None = None
    before: Paths | None = None
    behind: Paths | None = None
    norm: Paths | None = None
    linears: Mapping[str, Paths | Fused] = field(default_factory=dict)
    width: Paths | None = None
    optional: bool = False
    entry: Paths | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """A list of equal layers.

    Args:
        tower: Tower the stack belongs to.
        layers: Path of the module list, from the root; alternatives are tried in order.
        blocks: The sub-layers of each layer, or what reads them from a layer.
        name: Name of the stack if its tower has several.
        modality: Modality of its rows.
        packed: Whether the tokens of all rows are packed into one sequence.
    """

    tower: str
    layers: Paths
    blocks: Mapping[Block, BlockSpec] | Callable[[nn.Module], Mapping[Block, BlockSpec]]
    name: str = ""
    modality: Modality = "text"
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A site outside the layers, such as where a prompt goes.

    Args:
        tower: Tower it belongs to.
        block: Its kind.
        path: The module, from the root; it is skipped where there is none.
        name: Stack it comes before or after, or empty.
        modality: Modality of its rows.
        whole: What the module reads if it is a whole stack; see `weft.core.backbone.wiring`.
        width: Module whose width is that of the site, from the module; by default the module itself.
        positions: Module that adds learned positions within a whole stack, from the module.
        reader: Module that reads what a whole stack returns, from the root.
    """

    tower: str
    block: Block
    path: Paths
    name: str = ""
    modality: Modality = "text"
    whole: Reads | None = None
    width: Paths | None = None
    positions: Paths | None = None
    reader: Paths | None = None


@dataclass(frozen=True, slots=True)
class Outside:
    """Modules outside the layers, such as a connector or a head, whose linear maps may be adapted one by one.

    Args:
        path: The modules, from the root; all that exist are meant.
        modality: Modality of the rows that go through them.
        block: What they are.
    """

    path: Paths
    modality: Modality
    block: Block = "projection"


@dataclass(frozen=True, slots=True)
class Family:
    """What one model family looks like.

    Args:
        name: Name of the family.
        model_types: `config.model_type`, or the full name of a class whose models have no config, to the
            towers such a model must have.
        stacks: Its stacks.
        towers: Tower to the modules that make it up; the empty path is the whole model, if there is none of
            them.
        components: Word to modules or parameters, for `train_full`.
        nested: Attribute paths that hold backbones of other families, with what each is called.
        places: Sites outside the layers.
        outside: Modules outside the layers whose linear maps may be adapted.
        default_towers: Towers adapted if a configuration names none; empty stands for all.
        owners: Rule by which the rows of its towers of media belong to rows of the batch; see
            `weft.core.backbone.owners`. None where every row has one image.
        by_structure: Whether all but its model types and owners is read from the model; see
            `weft.core.backbone.families.structure`.
        optional_towers: Towers of nested backbones that may be of an unknown family, or own ones without the layers
            of their stack; they hold no site then.
    """

    name: str
    model_types: Mapping[str, tuple[str, ...]]
    stacks: tuple[Stack, ...] = ()
    towers: Mapping[str, Paths] = field(default_factory=dict)
    components: Mapping[str, Paths] = field(default_factory=dict)
    nested: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    outside: tuple[Outside, ...] = ()
    default_towers: tuple[str, ...] = ()
    owners: OwnersRule | None = None
    by_structure: bool = False
    optional_towers: tuple[str, ...] = ()


StructureReader = Callable[[nn.Module, Modality | None], Family]
_STRUCTURE_READERS: list[StructureReader] = []
FAMILIES: Registry[Family] = Registry(
    "`model_types`", BackboneError, "weft.core.backbone.families", group="weft.families"
)


def register_family(family: Family) -> Family:
    """Make a family, which may come from outside of weft, known under each of its model types.

    Raises:
        BackboneError: If another family has one of its model types.
    """
    for model_type in family.model_types:
        FAMILIES.register(model_type, family)
    return family


def families() -> Registry[Family]:
    """All registered families by model type, alphabetically."""
    return FAMILIES


def register_structure(read: StructureReader) -> StructureReader:
    """Make known what reads models, or towers of larger ones, of types that no family declares; the last one counts.

    It raises `BackboneError` where it cannot.
    """
    _STRUCTURE_READERS.append(read)
    return read


def read_structure(model: nn.Module, tower: Modality | None) -> Family:
    """A family for one model, or a tower of a larger one, of a type that no family declares.

    Raises:
        BackboneError: If its structure cannot be read.
    """
    len(FAMILIES)  # the reader is found as families are: its module is imported with theirs
    return _STRUCTURE_READERS[-1](model, tower)
