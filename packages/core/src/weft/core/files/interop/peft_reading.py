"""From the tensors that PEFT saved of a map to the units of ours that compute the same.

A map of PEFT may hold several of ours, fused; the file says which of its ranks belong to which where we wrote it, and
otherwise each of the roles gets all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from weft.core.backbone.sites import Site
from weft.core.errors import CheckpointError
from weft.core.files.interop.choices import Part
from weft.core.files.interop.peft_keys import StoredMap
from weft.core.files.interop.peft_settings import MAGNITUDE, MATRICES, alpha_of, tidy

ROLES = "weft_roles"

Shares = Sequence[tuple[str, int]]
_Read = Callable[[StoredMap, Mapping[str, Any], Shares | None], Iterator[Part]]


def parts_of(
    maps: Iterable[StoredMap], words: Mapping[str, Any], roles: str | None, matrices: Mapping[str, Tensor]
) -> list[Part]:
    """The units of all maps.

    `roles` says which ranks of a fused map belong to which role, as `export_peft` wrote it; `matrices` are those of
    VeRA.

    Raises:
        CheckpointError: If a tensor does not fit its map.
    """
    shares = _shares(roles)
    readers: dict[str, _Read] = {"LORA": _lora, "IA3": _factors, "VERA": partial(_vectors, matrices)}
    read = readers[words["peft_type"]]
    return [part for each in maps for part in read(each, words, shares.get(each.path))]


def _lora(stored: StoredMap, words: Mapping[str, Any], shares: Shares | None) -> Iterator[Part]:
    down, up = stored.tensors["lora_A"], stored.tensors["lora_B"]
    magnitude = stored.tensors.get(MAGNITUDE)
    site = stored.sites[0]
    rank = down.shape[0] if down.dim() == 2 else 0
    _check_shape(stored, "lora_A", down, (rank, site.in_width))
    _check_shape(stored, "lora_B", up, (site.out_width, rank))
    if magnitude is not None:
        magnitude = magnitude.flatten()
        _check_shape(stored, MAGNITUDE, magnitude, (site.out_width,))
    alpha, stabilised = alpha_of(words, stored.names), bool(words.get("use_rslora"))
    for at, columns in _columns(stored, shares):
        first, last = at.rows or (0, at.out_width)
        own = len(range(*columns.indices(rank)))
        options = {
            "rank": own,
            "alpha": tidy(alpha * (own / rank) ** (0.5 if stabilised else 1)),
            "rank_stabilised": stabilised,
            "dropout": words.get("lora_dropout", 0.0),
        }
        tensors = {"down.weight": down[columns].T, "up.weight": up[first:last, columns].T}
        if magnitude is not None:
            options["magnitude"] = True
            tensors["magnitude"] = magnitude[first:last]
        yield Part(at, options, tensors)


def _columns(stored: StoredMap, shares: Shares | None) -> Iterator[tuple[Site, slice]]:
    """The sites of a map, and which of its ranks each has."""
    own = {site.role: site for site in stored.sites}
    up = stored.tensors["lora_B"]
    roles = [role for role, _ in shares or ()]
    if shares and set(roles) <= own.keys() and len(set(roles)) == len(roles):
        found, start = [], 0
        for role, count in shares:
            found.append((own[role], slice(start, start + count)))
            start += count
        whole = start == up.shape[1] and min(count for _, count in shares) > 0
        if whole and all(_only_in(up[:, columns], site) for site, columns in found):
            yield from found
            return
    for site in stored.sites:
        yield site, slice(0, up.shape[1])


def _only_in(up: Tensor, site: Site) -> bool:
    first, last = site.rows or (0, site.out_width)
    return not (up[:first].any() or up[last:].any())


def _factors(stored: StoredMap, words: Mapping[str, Any], shares: Shares | None) -> Iterator[Part]:
    factors = stored.tensors["ia3_l"]
    own = {role for role, _ in shares} if shares is not None else {site.role for site in stored.sites}
    for site in stored.sites:
        first, last = site.rows or (0, site.out_width)
        of_input = factors.dim() == 2 and factors.shape[0] == 1
        if of_input != (site.role == "down"):
            ours, theirs = ("output", "input") if of_input else ("input", "output")
            raise CheckpointError(
                f"`folder` must scale the {ours} of {site.path}, which is {site.address}, but scales its {theirs}. "
                "Set PEFT's `feedforward_modules` to the maps out of the feed-forward blocks alone."
            )
        _check_shape(stored, "ia3_l", factors, (1, site.in_width) if of_input else (site.out_width, 1))
        part = factors[0] if of_input else factors[first:last, 0]
        if site.role in own or not bool((part == 1).all()):
            yield Part(site, {}, {"scale": part})


def _vectors(
    matrices: Mapping[str, Tensor], stored: StoredMap, words: Mapping[str, Any], shares: Shares | None
) -> Iterator[Part]:
    scale, factors = (stored.tensors[half].flatten() for half in ("vera_lambda_d", "vera_lambda_b"))
    down, up = (matrices[key].T for key in MATRICES)
    site, rank = stored.sites[0], scale.shape[0]
    if site.rows is not None:
        raise CheckpointError(
            f"`folder` must adapt maps that are not fused with others to be read as VeRA, but adapts {site.path}, part "
            f"of which is {site.address}, with other rows of its matrix than weft would. Merge it in PEFT."
        )
    _check_shape(stored, "vera_lambda_b", factors, (site.out_width,))
    _check_shape(stored, MATRICES[0], down[: site.in_width], (site.in_width, rank))
    _check_shape(stored, MATRICES[1], up[:, : site.out_width], (rank, site.out_width))
    options = {"rank": rank, "dropout": words.get("vera_dropout", 0.0), "start": words.get("d_initial", 0.1)}
    tensors = {"down.scale": scale, "up.scale": factors, "down.weight": down, "up.weight": up}
    yield Part(site, options, tensors)


def _shares(roles: str | None) -> dict[str, Shares]:
    """What a file says about fused maps; nothing where it says it in another way than we do."""
    try:
        found = json.loads(roles or "{}")
        return {
            str(path): [(str(role), int(count)) for role, count in shares] for path, shares in found.items()
        }
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
        return {}  # the words of another program


def _check_shape(stored: StoredMap, half: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape or 0 in shape:
        raise CheckpointError(
            f"`folder` must fit the backbone, but {half} of {stored.path} is {tuple(value.shape)} in the file and "
            f"{shape} in the model. Give the backbone that PEFT wrapped."
        )
