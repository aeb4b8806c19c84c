"""Components: the parameters of a backbone that a word such as `norms` or `lm_head` stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from weft.core.backbone.module_paths import is_inside
from weft.core.backbone.sites import SiteMap
from weft.core.errors import AddressError, unknown

_RULES = ("norms", "biases", "everything")
# PyTorch's own attention keeps those of query, key and value in one parameter beside its layers.
_BIASES = ("bias", "in_proj_bias")


def full_parameters(
    model: nn.Module, sites: SiteMap, word: str, towers: Iterable[str] | None
) -> Iterator[tuple[str, str, int]]:
    """The parameters that a word stands for.

    Parameters that several modules share belong to the first that registers them, as `named_parameters` has it. The
    words are `norms` (of the towers), `biases` and `everything` (of the towers and of what belongs to none, such as
    projections), and the components of the family. `towers` of None stands for the default.

    Yields:
        Name in the backbone, key in a checkpoint, number of elements.

    Raises:
        AddressError: If the backbone has no such component, or all of it is tied to another.
    """
    if word in _RULES:
        chosen = sites.check_towers(towers)
        inside = [path for tower in chosen for path in sites.towers[tower]]
        others = [path for tower, paths in sites.towers.items() if tower not in chosen for path in paths]
        names = _by_rule(model, word, inside, others)
    elif word in sites.components:
        paths = sites.components[word]
        names = [name for name, _ in model.named_parameters() if is_inside(name, paths)]
        if not names:
            raise AddressError(_tied(model, word, paths))
    else:
        raise AddressError(unknown("`train_full`", word, [*_RULES, *sites.components]))
    parameters = dict(model.named_parameters())
    for name in names:
        yield name, f"full.{_address(name, sites)}", parameters[name].numel()


def names_by_parameter(model: nn.Module) -> dict[int, list[str]]:
    """Identity of each parameter of a model to all its names, of which tied ones have several."""
    names: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(value), []).append(name)
    return names


def _by_rule(model: nn.Module, word: str, inside: list[str], others: list[str]) -> list[str]:
    """Names of parameters in some towers that are meant by a rule; but for norms, of what is in no other tower too."""
    names = [
        name
        for name, _ in model.named_parameters()
        if is_inside(name, inside) or (word != "norms" and not is_inside(name, others))
    ]
    if word == "biases":
        return [name for name in names if name.rpartition(".")[2] in _BIASES]
    if word == "norms":
        norms = {path for path, module in model.named_modules() if _is_norm(module)}
        return [name for name in names if name.rpartition(".")[0] in norms]
    return names


def _is_norm(module: nn.Module) -> bool:
    is_batch_norm = isinstance(module, nn.modules.batchnorm._NormBase)
    return "norm" in type(module).__name__.lower() and not is_batch_norm


def _address(name: str, sites: SiteMap) -> str:
    for path, front in sites.layers.items():
        if name.startswith(f"{path}."):
            return front + name[len(path) :]
    return name


def _tied(model: nn.Module, word: str, paths: Iterable[str]) -> str:
    by_identity = {id(value): name for name, value in model.named_parameters()}
    aliases = [
        by_identity[id(value)]
        for name, value in model.named_parameters(remove_duplicate=False)
        if is_inside(name, paths) and id(value) in by_identity
    ]
    if not aliases:
        return f"`train_full` names {word!r}, but this backbone has no parameters there. Leave it out."
    return (
        f"`train_full` must name parameters of their own, but {word!r} is tied to {', '.join(aliases)} in "
        "this backbone. Name the component that owns them, such as `embeddings`."
    )
