"""A layer of PEFT, called around what a map returned already, and never within a compiled graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional


@torch.compiler.disable  # type: ignore[untyped-decorator]  # PEFT asks for classes, and the stand-in for the map answers with that of the map
def call_layer(
    layer: nn.Module, tensors: Mapping[str, Tensor], module: nn.Module, inputs: Tensor, output: Tensor
) -> Tensor:
    """What PEFT's layer, without the map inside it, returns if it computes with some tensors, as `output` in dtype.

    `inputs` is what the map read, shape `(rows, ..., in)`, and `output` what it returned, shape `(rows, ..., out)`.
    """
    layer.__dict__["base_layer"] = _Map(module, inputs, output)
    try:
        result: Tensor = functional_call(layer, dict(tensors), (inputs,))
    finally:
        del layer.__dict__["base_layer"]
    return result.to(output.dtype)


class _Map:
    """The site's own map as PEFT sees it: what it returns for the present input is known already."""

    def __init__(self, module: Any, inputs: Tensor, output: Tensor) -> None:
        self._module = module
        self._inputs = inputs
        self._output = output

    @property
    def __class__(self) -> type:
        return type(self._module)

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise AttributeError("the class is that of the map")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if inputs is self._inputs:
            return self._output
        bias = None if self._module.bias is None else self._module.bias.to(inputs.dtype)
        return functional.linear(inputs, self._module.weight.to(inputs.dtype), bias)
