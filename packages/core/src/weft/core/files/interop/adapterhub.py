"""The format of the `adapters` library: bottleneck adapters of one task, read into a plain backbone.

Its keys are module paths of its own copies of the models, with the name of the adapter in them. The adapters of
`double_seq_bn` read the output of a sub-layer; that of `seq_bn` reads the residual stream after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from weft.core.adapted.attaching import attach
from weft.core.all_or_nothing import all_or_nothing
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import SUBLAYERS, Site, SiteMap
from weft.core.errors import CheckpointError, unknown
from weft.core.files.interop.choices import Part, configured, fill_units
from weft.core.files.stored_files import read_tensors, read_words

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter.safetensors", "model.safetensors")

_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "swish": "silu",
    "silu": "silu",
    "linear": "identity",
}
_BLOCKS = {
    "output_adapters": "ffn",
    "attention_adapters": "attention",
    "cross_attention_adapters": "cross_attention",
}
_TENSORS = {
    "adapter_down.0.weight": "down.weight",
    "adapter_down.0.bias": "down.bias",
    "adapter_up.weight": "up.weight",
    "adapter_up.bias": "up.bias",
}
# Options that change what an adapter computes, with the values that ours computes.
_PLAIN = {
    "original_ln_after": (True,),
    "residual_before_ln": (True,),
    "adapter_residual_before_ln": (False,),
    "ln_before": (False,),
    "ln_after": (False,),
    "use_gating": (False,),
    "phm_layer": (False,),
    "is_parallel": (False,),
    "inv_adapter": (None,),
    "stochastic_depth": (0.0, None),
    "dropout": (0.0, None),
}

Model = TypeVar("Model", bound=nn.Module)


def import_adapterhub(model: Model, folder: str | Path, *, task: str = "default") -> Model:
    """Attach bottleneck adapters that the `adapters` library saved.

    Args:
        model: A plain backbone of the class they were trained on.
        folder: What its `save_adapter(folder, name, use_safetensors=True)` wrote.
        task: Name the weights get.

    Returns:
        The same object, with units of method `bottleneck`: several where layers differ in size or in what they have.

    Raises:
        CheckpointError: If the files are not there, or hold adapters that compute something else.
    """
    folder = Path(folder)
    words, tensors = _read(folder)
    options = words["config"]
    _check_options(options)
    sites = resolve(model)
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        site, name = _place(key, str(words.get("name")), sites)
        found.setdefault(site.address, {})[name] = value
    if not found:
        raise CheckpointError(
            f"`folder` must hold some adapter, but the weights in {folder} are none. Save it again."
        )
    common = {
        "activation": _ACTIVATIONS[options["non_linearity"]],
        "scale": options.get("scaling", 1.0),
        "placement": "stream" if options.get("original_ln_before") else "serial",
    }
    parts = [
        _part(site, found[site.address], common)
        for site in sites.sites
        if not site.role and site.address in found
    ]
    configs = configured(sites, parts, "bottleneck")
    with all_or_nothing(model), torch.no_grad():
        attach(model, configs, [task])
        fill_units(model, parts, task)
    return model


def _part(site: Site, values: Mapping[str, Tensor], common: Mapping[str, Any]) -> Part:
    """The adapter of a site, whose tensors are checked."""
    if lacking := sorted(name for name in _TENSORS.values() if name not in values):
        raise CheckpointError(
            f"`folder` must hold both halves of every adapter and their biases, but that of {site.address} lacks "
            f"{', '.join(lacking)}. Save it again."
        )
    size = values["down.bias"].numel()
    shapes = {
        "down.weight": (size, site.width),
        "down.bias": (size,),
        "up.weight": (site.width, size),
        "up.bias": (site.width,),
    }
    for name, shape in shapes.items():
        if tuple(values[name].shape) != shape:
            raise CheckpointError(
                f"`folder` must fit the backbone, but {name} of {site.address} is {tuple(values[name].shape)} in the "
                f"file and {shape} in the model. Give the backbone that it was trained on."
            )
    tensors = {name: value.T if name.endswith("weight") else value for name, value in values.items()}
    return Part(site, {"bottleneck_size": size, **common}, tensors)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not (folder / CONFIG).is_file() or not weights:
        raise CheckpointError(
            f"`folder` must hold {CONFIG} and {WEIGHTS[0]}, but {folder} does not. Save it with "
            "`model.save_adapter(folder, name, use_safetensors=True)`."
        )
    words = read_words(folder / CONFIG, argument="folder")
    if not isinstance(words.get("config"), Mapping) or "non_linearity" not in words["config"]:
        raise CheckpointError(
            f"`folder` must hold a bottleneck adapter of the adapters library, but the config of {folder} is "
            f"of another kind. Give what its `save_adapter` wrote; for PEFT use `import_peft`."
        )
    return words, read_tensors(weights[0], argument="folder")


def _check_options(options: Mapping[str, Any]) -> None:
    odd = [name for name, values in _PLAIN.items() if name in options and options[name] not in values]
    if odd:
        raise CheckpointError(
            f"`folder` must hold adapters as `seq_bn` and `double_seq_bn` compute them, but sets "
            f"{', '.join(f'{name}={options[name]}' for name in odd)}. Train it again with weft."
        )
    if options["non_linearity"] not in _ACTIVATIONS:
        raise CheckpointError(unknown("`non_linearity` of `folder`", options["non_linearity"], _ACTIVATIONS))


def _place(key: str, name: str, sites: SiteMap) -> tuple[Site, str]:
    """The site and the tensor that a key means."""
    path, middle, tensor = key.partition(f".adapters.{name}.")
    if not middle or tensor not in _TENSORS:
        raise CheckpointError(
            f"`folder` must hold both halves of bottleneck adapters named {name!r} alone, but holds {key}. Save "
            "it without a head, with `with_head=False`."
        )
    parent, _, kind = path.rpartition(".")
    for site in sites.sites:
        if site.role or site.block not in SUBLAYERS:
            continue
        if kind in _BLOCKS:
            layer = sites.layers.get(parent)
            front = site.address.removesuffix(f".{site.block}")
            fits = layer == front and site.block == _BLOCKS[kind]
        else:
            # BERT and T5 keep the adapter in the module that ends the sub-layer.
            fits = site.path.startswith(f"{path}.") and path not in sites.layers
        if fits:
            return site, _TENSORS[tensor]
    raise CheckpointError(
        unknown("a module of `folder`", path, [*sites.layers, *(s.path for s in sites.sites)])
    )
