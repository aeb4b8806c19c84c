"""Models of unknown types, read by their structure: their parts by the configs they hold, their layers by a probe.

A vision-language model is a text model and a vision tower, each with a config of its own within the model's, and what
joins them. A part may be of a declared family or be read by its structure in turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_structure
from weft.core.backbone.layer_structure import is_packed, read_layer, sublayers
from weft.core.backbone.module_paths import below, is_inside
from weft.core.backbone.owners import Media
from weft.core.backbone.sites import Block, Modality
from weft.core.errors import BackboneError

NAME = "structure"


@register_structure
def read_model(model: nn.Module, tower: Modality | None = None) -> Family:
    """A family for one model, or a tower of a larger one, read from its modules, which may be on the meta device.

    Raises:
        BackboneError: If nothing in it is built as the layers of a transformer are, or silencing the sub-layers of a
            layer does not silence the layer.
    """
    parts = dict(_parts(model, _towers(model)))
    if "text" in parts.values():
        return _of_parts(model, parts)
    own: Modality = tower or ("vision" if getattr(model, "main_input_name", "") == "pixel_values" else "text")
    stacks = tuple(_stacks(model, own, parts))
    if not stacks:
        raise BackboneError("it has no list of layers with an attention.")
    rest = list(_rest(model, [*parts, *(str(stack.layers) for stack in stacks)]))
    named = {path: word for word, path in _embeddings(model).items()}
    return Family(
        name=NAME,
        model_types={_type_of(model): (own,)},
        stacks=stacks,
        towers={own: ""},
        outside=tuple(_outside(path, own, named) for path in rest),
        components={"vision": tuple(parts), **{word: path for path, word in named.items()}},
        nested=tuple(parts),
        default_towers=(own,) if parts else (),
        owners=undeclared_media if parts else None,
        optional_towers=("vision",),
    )


def undeclared_media(model: Any, inputs: Mapping[str, Any]) -> Sequence[Media]:
    """The rule of models about whose media nothing is declared: whose they are must be said."""
    return []


def _of_parts(model: nn.Module, parts: Mapping[str, Modality]) -> Family:
    texts, visions = ([path for path, each in parts.items() if each == tower] for tower in ("text", "vision"))
    if len(texts) > 1:
        raise BackboneError(
            f"it has several text models ({', '.join(texts)}), whose layers would share addresses."
        )
    named = {path: word for word, path in _embeddings(model).items() if not is_inside(path, parts)}
    rest = list(_rest(model, parts))
    joining = tuple(path for path in rest if path not in named)
    return Family(
        name=NAME,
        model_types={_type_of(model): ("text",)},
        outside=tuple(_outside(path, "vision", named) for path in rest),
        towers={"vision": tuple(visions)} if visions else {},
        components={
            "vision": tuple(visions),
            "projector": joining,
            **{word: path for path, word in named.items()},
        },
        nested=(*texts, *(visions if len(visions) == 1 else ())),
        default_towers=("text",),
        owners=undeclared_media,
        optional_towers=("vision",),
    )


def _outside(path: str, modality: Modality, named: Mapping[str, str]) -> Outside:
    return Outside(path, "text", "logits") if named.get(path) == "lm_head" else Outside(path, modality)


def _type_of(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def _towers(model: nn.Module) -> dict[str, Modality]:
    """Types of the parts that a model's config names, to their towers."""
    config = getattr(model, "config", None)
    reads_images = getattr(model, "main_input_name", "") == "pixel_values"
    words: dict[str, Modality] = {"text_config": "text", "vision_config": "vision", "decoder": "text"}
    if reads_images:
        words["encoder"] = "vision"
    return {kind: tower for kind, tower in _types(config, words) if kind != _type_of(model)}


def _types(config: Any, words: Mapping[str, Modality]) -> Iterator[tuple[str, Modality]]:
    for name, value in vars(config).items() if hasattr(config, "model_type") else ():
        if hasattr(value, "model_type"):
            if name in words:
                yield value.model_type, words[name]
            else:
                yield from _types(value, words)


def _parts(
    model: nn.Module, towers: Mapping[str, Modality], path: str = ""
) -> Iterator[tuple[str, Modality]]:
    """The outermost models with a config of one of some types, from the root."""
    for name, child in model.named_children():
        whole = below(path, name) if path else name
        tower = towers.get(_type_of(child))
        if tower is not None and hasattr(child, "save_pretrained"):
            yield whole, tower
        else:
            yield from _parts(child, towers, whole)


def _stacks(model: nn.Module, tower: Modality, parts: Collection[str]) -> Iterator[Stack]:
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and not is_inside(path, parts)
        and any(not {"attention", "cross_attention"}.isdisjoint(sublayers(layer)) for layer in module)
    ]
    lists = [path for path in lists if not is_inside(path, [other for other in lists if other != path])]
    for path, name in zip(lists, _names(lists), strict=True):
        layers = list(model.get_submodule(path).children())
        yield Stack(
            tower=tower,
            layers=path,
            blocks=_read_layers(path, layers).__getitem__,
            name=name,
            modality=tower,
            packed=any(is_packed(layer) for layer in layers),
        )


def _read_layers(path: str, layers: Sequence[nn.Module]) -> dict[nn.Module, Mapping[Block, BlockSpec]]:
    found: dict[nn.Module, Mapping[Block, BlockSpec]] = {}
    for index, layer in enumerate(layers):
        try:
            found[layer] = read_layer(layer)
        except BackboneError as error:
            raise BackboneError(f"`{path}.{index}` ({type(layer).__name__}) is refused: {error}.") from error
    return found


def _names(paths: Sequence[str]) -> list[str]:
    """A name for each of several lists: the first word that no other has; none where there is one list."""
    words = [path.split(".") for path in paths]
    if len(paths) == 1:
        return [""]
    return [
        next((word for word in own if sum(word in other for other in words) == 1), "_".join(own))
        for own in words
    ]


def _rest(model: nn.Module, taken: Collection[str], path: str = "") -> Iterator[str]:
    """The outermost modules with parameters that neither are in some modules nor hold one of them."""
    for name, child in model.named_children():
        whole = below(path, name) if path else name
        if whole in taken or next(child.parameters(), None) is None:
            continue
        if any(other.startswith(f"{whole}.") for other in taken):
            yield from _rest(child, taken, whole)
        else:
            yield whole


def _embeddings(model: nn.Module) -> dict[str, str]:
    """Paths of the embedding of tokens and of the map onto the vocabulary, where a model says which they are."""
    found = {}
    for word, method in (("embeddings", "get_input_embeddings"), ("lm_head", "get_output_embeddings")):
        try:
            module = getattr(model, method, lambda: None)()
        except NotImplementedError:  # how transformers says that a model has none
            module = None
        path = next(
            (path for path, each in model.named_modules() if each is module and module is not None), None
        )
        if path and isinstance(module, nn.Embedding if word == "embeddings" else nn.Linear):
            found[word] = path
    return found
