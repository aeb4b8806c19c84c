"""Registration of operations with torch: one library, one way to declare an op and its companions.

Every operation is a pair, a forward op and a backward op, both opaque to the compiler. The forward op gets a
fake implementation, an explicit backward and an autocast rule; the backward op gets a fake implementation and
a backward that raises, because leaving it out makes torch return wrong second derivatives without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from weft.kernels.errors import DoubleBackwardError

NAMESPACE = "weft"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


def define_pair(
    name: str,
    signature: str,
    forward: Callable[..., Any],
    forward_fake: Callable[..., Any],
    backward_signature: str,
    backward: Callable[..., Any],
    backward_fake: Callable[..., Any],
    *,
    autograd: Callable[..., Any],
    setup_context: Callable[..., Any],
    cast: Callable[[torch.dtype, tuple[Any, ...]], tuple[Any, ...]],
    flops: Callable[..., int],
    backward_flops: Callable[..., int],
) -> None:
    """Declare ``weft::name`` and ``weft::name_backward``.

    Args:
        name: name of the forward op.
        signature: its schema without the name.
        forward: its implementation, for every device.
        forward_fake: its twin on tensors without values.
        backward_signature: the schema of the backward op.
        backward: its implementation.
        backward_fake: its twin.
        autograd: the gradient formula, which calls the backward op.
        setup_context: what it keeps.
        cast: turns the autocast dtype of a device and the arguments into those to call with under autocast.
        flops: the cost of the forward op, given shapes in place of tensors.
        backward_flops: that of the backward op.
    """
    define(name, signature, forward, forward_fake)
    define(f"{name}_backward", backward_signature, backward, backward_fake)
    _differentiate(name, autograd, setup_context)
    _forbid_double_backward(f"{name}_backward")
    _autocast(name, cast)
    for op, formula in ((name, flops), (f"{name}_backward", backward_flops)):
        register_flop_formula(getattr(getattr(torch.ops, NAMESPACE), op))(formula)


def define(name: str, signature: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Declare the op ``weft::name`` with one implementation for every device and its fake twin."""
    _LIBRARY.define(name + signature)
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)


def _differentiate(name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]) -> None:
    """Attach the backward of ``weft::name``.

    It is what `torch.library.register_autograd` does, which looks up the default of every argument in every call: for
    our schemas, which have many arguments and no defaults, that took longer than a small matrix product.
    """
    overload = getattr(getattr(torch.ops, NAMESPACE), name).default

    def below(keyset: Any, arguments: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    def forward(ctx: Any, *arguments: Any) -> Any:
        *given, keyset = arguments
        output = below(keyset, tuple(given))
        setup_context(ctx, inputs=tuple(given), output=output)
        return output

    def backward_of(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        found = backward(ctx, *gradients)
        return (*found, None) if isinstance(found, tuple) else (found, None)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward_of)}
    function: Any = type(f"BackwardOf_{name}", (torch.autograd.Function,), methods)

    def differentiable(keyset: Any, *arguments: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return function.apply(*arguments, keyset)
        return below(keyset, arguments)

    _LIBRARY.impl(name, differentiable, "Autograd", with_keyset=True)


def _forbid_double_backward(name: str) -> None:
    """Make differentiating ``weft::name``, itself a backward op, raise `DoubleBackwardError`."""

    def raise_error(ctx: Any, *gradients: Any) -> None:
        raise DoubleBackwardError(
            f"`{NAMESPACE}::{name}` must not be differentiated, but a gradient of its output was asked for: "
            "the operation has a first derivative only. Compute second derivatives with plain torch operations."
        )

    def no_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None

    _differentiate(name, raise_error, no_context)


def _autocast(name: str, cast: Callable[[torch.dtype, tuple[Any, ...]], tuple[Any, ...]]) -> None:
    """Under autocast, call ``weft::name`` with `cast(dtype, arguments)` and autocast switched off."""
    overload = getattr(getattr(torch.ops, NAMESPACE), name).default
    for device_type, key in _AUTOCAST_KEYS.items():

        def under_autocast(keyset: Any, *arguments: Any, _device: str = device_type, **named: Any) -> Any:
            without = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
                torch._C.DispatchKey.AutocastCUDA
            )
            with torch._C._ExcludeDispatchKeyGuard(without):
                return overload(*cast(torch.get_autocast_dtype(_device), arguments), **named)

        _LIBRARY.impl(name, under_autocast, key, with_keyset=True)


def cast_all(dtype: torch.dtype, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The autocast rule of a matrix product: every floating tensor except float64 to `dtype`."""
    return tuple(
        a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() and a.dtype != torch.float64 else a
        for a in arguments
    )


def gradients(found: Iterable[Tensor | None], inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs of a backward op, none of which can be None: gradients dense and in the dtype of their inputs.

    Where there is no gradient, or no input, there is an empty tensor. The first input is never None.
    """
    return tuple(
        _empty(inputs) if got is None or like is None else got.to(like.dtype).contiguous()
        for got, like in zip(found, inputs, strict=True)
    )


def fake_gradients(needs: Iterable[bool], inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The same on tensors without values."""
    return tuple(
        like.new_empty(like.shape) if need and like is not None else _empty(inputs)
        for need, like in zip(needs, inputs, strict=True)
    )


def _empty(inputs: Sequence[Tensor | None]) -> Tensor:
    first = inputs[0]
    assert first is not None
    return first.new_empty(0)
