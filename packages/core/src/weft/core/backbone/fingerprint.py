"""What a backbone is, so that a checkpoint is never loaded onto another one.

The structure's hash covers addresses and widths, not module names, so a release that renames modules keeps it. That of
the weights covers every frozen value that outputs depend on; see `weights_digest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from weft.core.backbone.sites import Site, SiteMap
from weft.core.backbone.tensor_digests import tensor_digests

_SAMPLES = 16
_VERSION = "2:"


@dataclass(frozen=True, slots=True)
class Backbone:
    """Description of a backbone.

    Args:
        model_class: Name of its class.
        family: Name of its family.
        name: Where it was loaded from, as far as its config says; may be empty.
        structure: Hash of its sites and widths.
        weights: Hash of its weights, as `weights_digest` makes it, or without a version in front, of a sample of them,
            as weft once did; None on the meta device, for quantised and for sharded weights.
    """

    model_class: str
    family: str
    name: str
    structure: str
    weights: str | None


def describe_backbone(model: nn.Module, sites: SiteMap, trained: Collection[str] = ()) -> Backbone:
    """Describe a backbone before training; the parameters that are trained are in the checkpoint instead."""
    return replace(describe_structure(model, sites), weights=weights_digest(model, trained))


def describe_structure(model: nn.Module, sites: SiteMap) -> Backbone:
    """Describe a backbone without its weights."""
    shapes = [(site.address, site.in_width, site.out_width, site.rows) for site in _inner(sites)]
    config = getattr(model, "config", None)
    return Backbone(
        model_class=type(model).__name__,
        family=sites.family,
        name=str(getattr(config, "_name_or_path", "") or ""),
        structure=_digest(json.dumps([sites.family, shapes]).encode()),
        weights=None,
    )


def weights_digest(model: nn.Module, trained: Collection[str] = ()) -> str | None:
    """A hash of all that a backbone's outputs depend on and that a checkpoint does not hold.

    It reads every value of every frozen parameter (towers, embeddings, heads, visual embedding) and of every saved
    buffer of floating numbers (statistics of norms), in the order in which the model registers them. A sample, or sums,
    would be cheaper and let changes slip through: a layer that was zeroed or trained elsewhere, two that changed
    places. What this cannot see is a change below the resolution of bfloat16, to which all are rounded, so that a
    backbone loaded in float32 and in bfloat16 is the same one.

    Args:
        model: The backbone, plain or adapted; units are left out.
        trained: Names of its parameters that a checkpoint holds; with each go the buffers of its own module.

    Returns:
        The hash behind the version of this rule; None where values are absent or quantised.
    """
    modules = {name.rpartition(".")[0] for name in trained}
    values: list[tuple[str, torch.Tensor]] = [
        (name, value) for name, value in model.named_parameters() if name not in trained
    ]
    values += [(name, value) for name, value in _buffers(model) if name.rpartition(".")[0] not in modules]
    values = [(name, value) for name, value in values if not name.startswith("weft.")]
    if any(value.is_meta or not value.is_floating_point() or _is_shard(value) for _, value in values):
        return None
    digest = hashlib.sha256()
    for (_, value), own in zip(values, tensor_digests(model, values), strict=True):
        digest.update(f"{tuple(value.shape)}".encode() + own)
    return f"{_VERSION}{digest.hexdigest()[:32]}"


def same_weights(model: nn.Module, sites: SiteMap, here: str | None, saved: str | None) -> bool:
    """Whether a checkpoint's backbone has the weights of this one, as far as both are known.

    What is `saved` may be by the rule of any version of weft; `here` is the backbone's `weights_digest`.
    """
    if saved is not None and not saved.startswith(_VERSION):
        here = _sampled_weights(model, sites)
    return here is None or saved is None or here == saved


def _buffers(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Saved buffers of floating numbers: positions and counts are the architecture's, or matter to training alone."""
    return [
        (f"{path}.{name}" if path else name, value)
        for path, module in model.named_modules()
        for name, value in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set and value.is_floating_point()
    ]


def _is_shard(value: torch.Tensor) -> bool:
    return hasattr(value, "device_mesh")


def _sampled_weights(model: nn.Module, sites: SiteMap) -> str | None:
    """Version 1: a sample of the linear maps of the sites."""
    samples: list[float] = []
    for path in dict.fromkeys(site.path for site in _inner(sites)):
        for value in model.get_submodule(path).parameters():
            if value.dim() == 2:
                if value.is_meta or not value.is_floating_point() or _is_shard(value):
                    return None
                samples += value.detach().reshape(-1)[:_SAMPLES].to("cpu", torch.bfloat16).tolist()
                break
    return _digest(json.dumps(samples).encode()) if samples else None


def _inner(sites: SiteMap) -> Sequence[Site]:
    """The sites; a whole stack says nothing that its layers do not."""
    return [site for site in sites.sites if not site.wiring.whole]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
