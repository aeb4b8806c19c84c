"""Checks of arguments that several operations share.

Each raises in one grammar: argument in backticks, rule, value, next step. Optional arguments that are None pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weft.kernels.errors import KernelDeviceError, KernelShapeError, KernelTypeError, KernelValueError

INTEGER_DTYPES = (torch.int32, torch.int64)
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_is_tensor(name: str, value: object) -> None:
    """Require a tensor."""
    if not isinstance(value, Tensor):
        raise KernelTypeError(
            f"`{name}` must be a tensor, but is a {type(value).__name__}. Wrap it with torch.as_tensor."
        )


def check_tensors(reference: Tensor, named: Mapping[str, Tensor | None]) -> None:
    """Require that every given tensor is a tensor on the device of `reference`."""
    device = reference.device
    for name, tensor in named.items():
        if tensor is None:
            continue
        check_is_tensor(name, tensor)
        if tensor.device != device:
            raise KernelDeviceError(
                f"`{name}` must be on the device of the first argument ({device}), but is on "
                f"{tensor.device}. Move it with .to({str(device)!r})."
            )


def check_floating(named: Mapping[str, Tensor | None]) -> None:
    """Require a floating-point dtype of 16, 32 or 64 bits of every given tensor."""
    for name, tensor in named.items():
        if tensor is not None and tensor.dtype not in FLOAT_DTYPES:
            raise KernelTypeError(
                f"`{name}` must be float16, bfloat16, float32 or float64, but is {tensor.dtype}. "
                "Convert it with .to(torch.float32)."
            )


def check_integer(named: Mapping[str, Tensor | None]) -> None:
    """Require int32 or int64 of every given tensor."""
    for name, tensor in named.items():
        if tensor is not None and tensor.dtype not in INTEGER_DTYPES:
            raise KernelTypeError(
                f"`{name}` must be int32 or int64, but is {tensor.dtype}. Convert it with .to(torch.int64)."
            )


def check_rank(name: str, tensor: Tensor | None, rank: int, meaning: str) -> None:
    """Require `rank` dimensions; `meaning` spells them out, such as ``"(slots, d_in, rank)"``."""
    if tensor is not None and tensor.dim() != rank:
        raise KernelShapeError(
            f"`{name}` must have shape {meaning}, but has {tensor.dim()} dimensions: {tuple(tensor.shape)}. "
            f"Reshape it to {meaning}."
        )


def check_size(name: str, tensor: Tensor | None, dim: int, expected: int, meaning: str) -> None:
    """Require `tensor.shape[dim] == expected`; `meaning` says where the expected size comes from."""
    if tensor is not None and tensor.shape[dim] != expected:
        raise KernelShapeError(
            f"`{name}` must have size {expected} in dimension {dim} ({meaning}), but has shape "
            f"{tuple(tensor.shape)}. Check which tensors belong together."
        )


def check_shape(name: str, tensor: Tensor | None, expected: tuple[int, ...], meaning: str) -> None:
    """Require the shape of the output; `meaning` says what gives its width."""
    if tensor is not None and tensor.shape != expected:
        raise KernelShapeError(
            f"`{name}` must have the shape of the output {tuple(expected)}, but has {tuple(tensor.shape)}. "
            f"Check {meaning}."
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Require one of `choices`."""
    if value not in choices:
        raise KernelValueError(
            f"`{name}` must be one of {', '.join(choices)}, but is {value!r}. Choose one of them."
        )


def check_probability(name: str, value: float) -> None:
    """Require a number in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise KernelValueError(f"`{name}` must lie in [0, 1), but is {value}. Use 0.0 to switch it off.")


def check_ends(ends: Tensor, total: int, counted: str, group: str) -> None:
    """Require `offsets`, the ends of groups, to be sorted, not negative and to end at the `total` of things `counted`.

    Reads values, so only for host tensors.
    """
    if ends.numel() == 0 or int(ends[-1]) != total:
        last = int(ends[-1]) if ends.numel() else "missing"
        raise KernelValueError(
            f"`offsets` must end at the number of {counted} ({total}), but its last entry is {last}. "
            f"Give the end of every {group}'s {counted}, without a leading zero."
        )
    if int(ends[0]) < 0 or bool((ends[1:] < ends[:-1]).any()):
        raise KernelValueError(
            f"`offsets` must be sorted and not negative, but is {ends.tolist()}. Sort the {counted} by {group} first."
        )
