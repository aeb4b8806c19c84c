"""Registration of operations with torch: one library, one way to declare an op and its companions.

Every operation is a pair, a forward op and a backward op, both opaque to the compiler. The forward op gets a
fake implementation, an explicit backward and an autocast rule; the backward op gets a fake implementation and
a backward that raises, because leaving it out makes torch return wrong second derivatives without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from weft.kernels.errors import DoubleBackwardError

NAMESPACE = "weft"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The ops ``weft::name`` and ``weft::name_backward``.

    Attributes:
        name: name of the forward op.
        arguments: its schema, tensors first.
        gradients: arguments that have a gradient; the backward op returns theirs in this order.
        forward: its implementation, for every device.
        fake: its twin on tensors without values.
        backward: the gradients, from that of the output, what is kept, whether each is needed, and the arguments, with
            None in place of `added`.
        flops: the cost of the forward op, given shapes in place of tensors.
        backward_cost: that of the backward op, in forward ops.
        casts: whether autocast casts all but `added`; else values keep the precision that they are given.
        kept: number of outputs beside the first, which the backward op gets.
        added: argument that is added to the output and has its gradient. Where ``add_input`` is set, the first is.
    """

    name: str
    arguments: str
    gradients: Sequence[str]
    forward: Callable[..., Any]
    fake: Callable[..., Any]
    backward: Callable[..., Iterable[Tensor | None]]
    flops: Callable[..., int]
    backward_cost: int
    casts: bool
    kept: int = 0
    added: str | None = None

    def define(self) -> None:
        """Declare both, with the gradient, the autocast rule and the cost."""
        kept = "".join(f"Tensor kept{number}, " for number in range(self.kept))
        outputs = [", ".join(["Tensor"] * count) for count in (self.kept + 1, len(self.gradients))]
        define(self.name, f"({self.arguments}) -> ({outputs[0]})", self.forward, self.fake)
        schema = f"(Tensor dy, {kept}bool[] needs, {self.arguments}) -> ({outputs[1]})"
        define(f"{self.name}_backward", schema, self._compute_backward, self._fake_backward)
        _differentiate(self.name, self._autograd, self._setup_context)
        _forbid_double_backward(f"{self.name}_backward")
        _autocast(self.name, self._cast)
        register_flop_formula(_op(self.name))(self.flops)
        register_flop_formula(_op(f"{self.name}_backward"))(self._backward_flops)

    @cached_property
    def _names(self) -> list[str]:
        return [argument.split()[-1] for argument in self.arguments.split(", ")]

    @cached_property
    def _tensors(self) -> int:
        return self.arguments.count("Tensor")

    @cached_property
    def _backward_op(self) -> Any:
        return _op(f"{self.name}_backward").default

    @cached_property
    def _positions(self) -> list[int]:
        """Where the arguments are that have a gradient."""
        return [self._names.index(name) for name in self.gradients]

    @cached_property
    def _place(self) -> int | None:
        """Where the argument is that is added."""
        return None if self.added is None else self._names.index(self.added)

    def _inputs(self, given: tuple[Any, ...]) -> list[Any]:
        return [given[self.kept + 2 + position] for position in self._positions]

    def _compute_backward(self, *given: Any) -> tuple[Tensor, ...]:
        found = zip(self.backward(*given), given[self.kept + 1], strict=True)
        return _dense((own if need else None for own, need in found), self._inputs(given))

    def _fake_backward(self, *given: Any) -> tuple[Tensor, ...]:
        return _fake_gradients(given[self.kept + 1], self._inputs(given))

    def _setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kept = output[1:] if self.kept else ()
        ctx.mark_non_differentiable(*kept)
        saved, ctx.values = list(inputs[: self._tensors]), inputs[self._tensors :]
        if self._place is not None and saved[self._place] is not None:
            # Only its shape and dtype matter backward; saving it would keep a whole activation alive.
            ctx.added = saved[self._place].dim(), saved[self._place].dtype
            saved[self._place] = None
        ctx.save_for_backward(*kept, *saved)

    def _autograd(self, ctx: Any, dy: Tensor, *unused: Tensor | None) -> tuple[Any, ...]:
        asked = ctx.needs_input_grad
        needs = [bool(asked[position]) for position in self._positions]
        found: list[Any] = [None] * len(self._names)
        if any(needs):
            saved = ctx.saved_tensors  # checkpointing lets them be unpacked only once
            computed = self._backward_op(dy, *saved[: self.kept], needs, *saved[self.kept :], *ctx.values)
            for position, need, own in zip(self._positions, needs, computed, strict=True):
                found[position] = own if need else None
        if self._place is not None and asked[self._place]:
            dim, dtype = ctx.added
            found[self._place] = (dy if dy.dim() == dim else dy.sum(0)).to(dtype)
        return tuple(found)

    def _cast(self, dtype: torch.dtype, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.casts:
            return values
        cast = [_cast(value, dtype) for value in values]
        if self._place is not None:
            cast[self._place] = values[self._place]
            flag = self._names.index("add_input")
            if values[flag] and cast[0].dtype != values[0].dtype:
                cast[self._place], cast[flag] = values[0], False
        return tuple(cast)

    def _backward_flops(self, *shapes: Any, **named: Any) -> int:
        return self.backward_cost * self.flops(*shapes[self.kept + 2 :])


def _op(name: str) -> Any:
    return getattr(getattr(torch.ops, NAMESPACE), name)


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
    overload = _op(name).default

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

    _differentiate(name, raise_error, lambda ctx, inputs, output: None)


def _autocast(name: str, cast: Callable[[torch.dtype, tuple[Any, ...]], tuple[Any, ...]]) -> None:
    """Under autocast, call ``weft::name`` with `cast(dtype, arguments)` and autocast switched off."""
    overload = _op(name).default
    without = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    without |= torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)
    for device_type, key in _AUTOCAST_KEYS.items():

        def under_autocast(keyset: Any, *arguments: Any, _device: str = device_type, **named: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(without):
                return overload(*cast(torch.get_autocast_dtype(_device), arguments), **named)

        _LIBRARY.impl(name, under_autocast, key, with_keyset=True)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """What autocast does for a matrix product: every floating tensor except float64 to `dtype`."""
    casts = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
    return value.to(dtype) if casts else value


def _dense(found: Iterable[Tensor | None], inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """The outputs of a backward op, none of which can be None: gradients dense and in the dtype of their inputs.

    Where there is no gradient, or no input, there is an empty tensor. The first input is never None.
    """
    return tuple(
        inputs[0].new_empty(0) if got is None or like is None else got.to(like.dtype).contiguous()
        for got, like in zip(found, inputs, strict=True)
    )


def _fake_gradients(needs: Iterable[bool], inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """The same on tensors without values."""
    return tuple(
        like.new_empty(like.shape) if need and like is not None else inputs[0].new_empty(0)
        for need, like in zip(needs, inputs, strict=True)
    )
