"""What a backbone is, so that a checkpoint is never loaded onto another one.

The structure's hash covers addresses and widths, not module names, so a release that renames modules keeps
it. The hash of the weights samples the frozen linear maps of the sites, rounded to bfloat16, so it is the
same whether the backbone was loaded in float32 or in bfloat16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from weft.core.sites import Site, SiteMap

_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Backbone:
    """Description of a backbone.

    Args:
        model_class: Name of its class.
        family: Name of its family.
        name: Where it was loaded from, as far as its config says; may be empty.
        structure: Hash of its sites and widths.
        weights: Hash of a sample of its weights; None on the meta device or for quantised weights.
    """

    model_class: str
    family: str
    name: str
    structure: str
    weights: str | None

    def to_dict(self) -> dict[str, Any]:
        """The description as plain data."""
        return asdict(self)


def describe_backbone(model: nn.Module, sites: SiteMap) -> Backbone:
    """Describe a backbone; it is only looked at.

    Args:
        model: The backbone, before training.
        sites: Its sites.
    """
    # A whole stack says nothing that its layers do not.
    inner = [site for site in sites.sites if not site.whole]
    shapes = [(site.address, site.in_width, site.out_width, site.rows) for site in inner]
    config = getattr(model, "config", None)
    return Backbone(
        model_class=type(model).__name__,
        family=sites.family,
        name=str(getattr(config, "_name_or_path", "") or ""),
        structure=_digest(json.dumps([sites.family, shapes]).encode()),
        weights=_weights(model, inner),
    )


def _weights(model: nn.Module, sites: Sequence[Site]) -> str | None:
    samples: list[float] = []
    for path in dict.fromkeys(site.path for site in sites):
        for value in model.get_submodule(path).parameters():
            if value.dim() == 2:
                if value.is_meta or not value.is_floating_point():
                    return None
                samples += value.detach().reshape(-1)[:_SAMPLES].to("cpu", torch.bfloat16).tolist()
                break
    return _digest(json.dumps(samples).encode()) if samples else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
