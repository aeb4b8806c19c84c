"""What PEFT trains in full beside an adapter, from our `train_full`, and back: modules and biases.

PEFT swaps in a copy of each module of its `modules_to_save`, which are all whose path ends in one of these words. A
copy leaves behind what is tied to it, and takes no unit inside. With `bias: all`, LoRA trains biases where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from weft.core.all_or_nothing import Kept
from weft.core.backbone.components import full_parameters, names_by_parameter
from weft.core.backbone.module_paths import is_inside
from weft.core.backbone.sites import SiteMap
from weft.core.errors import AddressError, CheckpointError

_LISTS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)  # PEFT refuses to copy them


def trained_in_full(
    model: nn.Module, trained: set[str], adapted: set[str]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """The outermost modules of which all is trained, as PEFT would copy them, and the biases of other modules.

    `trained` names parameters, `adapted` the modules at which there are units.

    Returns:
        Path of each module to its state, and name of each bias in a model of PEFT to its value.

    Raises:
        CheckpointError: If PEFT cannot hold it, or would not compute the same.
    """
    _check_untied(model, trained)
    found: dict[str, nn.Module] = {}
    covered: set[str] = set()
    for path, module in model.named_modules():
        names = {f"{path}.{name}" for name, _ in module.named_parameters()}
        if not path or isinstance(module, _LISTS) or not names or names <= covered or not names <= trained:
            continue
        found[path] = module
        covered |= names
    biases = {name for name in trained - covered if name.rpartition(".")[2] == "bias"}
    if left := sorted(trained - covered - biases):
        raise CheckpointError(
            f"`train_full` must name whole modules and biases to be written for PEFT, but trains {', '.join(left[:3])} "
            "and not all that belongs to the same modules. Save it with `save_pretrained` instead."
        )
    _check_ends(model, found)
    for path in sorted(adapted):
        if (inside := next((each for each in found if is_inside(path, (each,))), None)) is not None:
            raise CheckpointError(
                f"`train_full` must leave out the maps that have a unit to be written for PEFT, but {inside} holds "
                f"{path}. Save it with `save_pretrained` instead."
            )
    own = dict(model.named_parameters())
    state = {path: dict(module.state_dict()) for path, module in found.items()}
    return state, {_in_peft(name, adapted): own[name] for name in sorted(biases)}


def saved_in_full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name in the backbone to value, of what PEFT saved beside its units.

    With `bias: all`, PEFT saves the biases of a module that it copied three times, of which the two within the copying
    are left out.
    """
    return {
        name.replace(".base_layer.", "."): value
        for name, value in tensors.items()
        if ".original_module." not in name and ".modules_to_save." not in name
    }


def words_of(
    model: nn.Module, sites: SiteMap, towers: Iterable[str], names: Iterable[str]
) -> tuple[str, ...]:
    """The words of `train_full` that stand for exactly these parameters, which saved buffers may be among.

    `norms` and `biases` count within the towers.

    Raises:
        CheckpointError: If no words do, or the tensors are no parameters of their own.
    """
    own = dict(model.named_parameters())
    wanted = {name for name in names if name in own}
    state = model.state_dict()
    if unknown_names := sorted(name for name in names if name not in state):
        raise CheckpointError(
            f"`folder` must save modules of the backbone, but saves {', '.join(unknown_names[:3])}, which "
            f"{type(model).__name__} lacks. Give the backbone that PEFT wrapped."
        )
    _check_untied(model, set(names))
    chosen: list[str] = []
    covered: set[str] = set()
    by_word = {word: _names(model, sites, word, towers) for word in ("norms", "biases", *sites.components)}
    for word, found in sorted(by_word.items(), key=lambda item: -len(item[1])):
        if found <= wanted and not found <= covered:
            chosen.append(word)
            covered |= found
    if left := sorted(wanted - covered):
        raise CheckpointError(
            f"`folder` must save modules that words of `train_full` stand for, but saves {', '.join(left[:3])}. The "
            f"words of this backbone are {', '.join(sorted(by_word))}."
        )
    return tuple(chosen)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], kept: Kept) -> None:
    """Copy parameters and buffers into a model, in place, and keep the values that are written over.

    Raises:
        CheckpointError: If a shape differs.
    """
    state = model.state_dict()
    for name, value in tensors.items():
        if state[name].shape != value.shape:
            raise CheckpointError(
                f"`folder` must fit the backbone, but {name} is {tuple(value.shape)} in the file and "
                f"{tuple(state[name].shape)} in the model. Give the backbone that PEFT wrapped."
            )
        kept.keep(state[name], on_host=True)
        state[name].copy_(value)


def _in_peft(name: str, adapted: set[str]) -> str:
    path = name.removesuffix(".bias")
    return f"{path}.base_layer.bias" if path in adapted else name


def _names(model: nn.Module, sites: SiteMap, word: str, towers: Iterable[str]) -> set[str]:
    try:
        return {name for name, _, _ in full_parameters(model, sites, word, towers)}
    except AddressError:  # all of it is tied to another component
        return set()


def _check_untied(model: nn.Module, names: set[str]) -> None:
    for aliases in names_by_parameter(model).values():
        if len(aliases) > 1 and not names.isdisjoint(aliases):
            first, second = sorted(aliases)[:2]
            raise CheckpointError(
                f"what is trained in full must not be tied to go through PEFT, whose copy would leave the other "
                f"behind, but {first} is {second}. Leave it out of `train_full`, or save with `save_pretrained`."
            )


def _check_ends(model: nn.Module, paths: Iterable[str]) -> None:
    chosen = set(paths)
    for name, _ in model.named_modules():
        end = next((path for path in chosen if name.endswith(path)), None)
        if end is not None and name not in chosen:
            raise CheckpointError(
                f"`train_full` must name modules that PEFT can tell apart by the ends of their paths, but {name} ends "
                f"in {end}. Save it with `save_pretrained` instead."
            )
