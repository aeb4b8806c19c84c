"""Registration of operations with torch: one library, one way to declare an op and its companions.

Every operation is a pair, a forward op and a backward op, both opaque to the compiler. The forward op gets a
fake implementation, an explicit backward and an autocast rule; the backward op gets a fake implementation and
a backward that raises, because leaving it out makes torch return wrong second derivatives without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from weft.kernels.errors import DoubleBackwardError

NAMESPACE = "weft"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


def define(name: str, signature: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Declare the op ``weft::name`` with one implementation for every device and its fake twin."""
    _LIBRARY.define(name + signature)
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)


def differentiate(name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]) -> None:
    """Attach the backward of ``weft::name``."""
    torch.library.register_autograd(
        f"{NAMESPACE}::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )


def forbid_double_backward(name: str) -> None:
    """Make differentiating ``weft::name``, itself a backward op, raise `DoubleBackwardError`."""

    def raise_error(ctx: Any, *gradients: Any) -> None:
        raise DoubleBackwardError(
            f"`{NAMESPACE}::{name}` must not be differentiated, but a gradient of its output was asked for: "
            "the "
            "operation has a first derivative only. Compute second derivatives with plain torch operations."
        )

    def no_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None

    differentiate(name, raise_error, no_context)


def autocast(name: str, cast: Callable[[torch.dtype, tuple[Any, ...]], tuple[Any, ...]]) -> None:
    """Under autocast, call ``weft::name`` with `cast(dtype, arguments)` and autocast switched off.

    `dtype` is the autocast dtype of the device in question.
    """
    overload = getattr(getattr(torch.ops, NAMESPACE), name).default
    for device_type, key in _AUTOCAST_KEYS.items():

        def under_autocast(keyset: Any, *arguments: Any, _device: str = device_type, **named: Any) -> Any:
            without = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
                torch._C.DispatchKey.AutocastCUDA
            )
            with torch._C._ExcludeDispatchKeyGuard(without):
                return overload(*cast(torch.get_autocast_dtype(_device), arguments), **named)

        _LIBRARY.impl(name, under_autocast, key, with_keyset=True)


def count_flops(name: str, formula: Callable[..., int]) -> None:
    """Tell torch what ``weft::name`` costs; `formula` gets shapes in place of tensors."""
    overload = getattr(getattr(torch.ops, NAMESPACE), name)
    register_flop_formula(overload)(formula)


def cast_all(dtype: torch.dtype, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The autocast rule of a matrix product: every floating tensor except float64 to `dtype`."""
    return tuple(
        a.to(dtype)
        if isinstance(a, torch.Tensor) and a.is_floating_point() and a.dtype != torch.float64
        else a
        for a in arguments
    )
