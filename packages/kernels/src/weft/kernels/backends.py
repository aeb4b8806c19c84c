"""Which implementation runs a call: the plain torch reference or the Triton kernels."""

from __future__ import annotations

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from weft.kernels.checks import check_choice
from weft.kernels.errors import KernelBackendError

BACKENDS = ("auto", "triton", "torch")
TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_INTERPRETER_VARIABLE = "TRITON_INTERPRET"
_BACKEND_VARIABLE = "WEFT_KERNELS_BACKEND"
_TRITON_FOUND = importlib.util.find_spec("triton") is not None


def triton_installed() -> bool:
    """Whether the `triton` package can be imported (it is not imported to find out)."""
    return _TRITON_FOUND


def interpreting() -> bool:
    """Whether Triton kernels run on the CPU through Triton's interpreter (``TRITON_INTERPRET=1``)."""
    return os.environ.get(_INTERPRETER_VARIABLE, "0").lower() in ("1", "true", "on", "yes")


def check_backend(backend: str) -> None:
    """Reject an unknown `backend` name, and ``"triton"`` where Triton is not installed.

    Raises:
        KernelValueError: `backend` is not one of ``auto``, ``triton``, ``torch``.
        KernelBackendError: ``triton`` was asked for and is not installed.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "triton" and not triton_installed():
        raise KernelBackendError(
            "`backend` must be 'auto' or 'torch' where Triton is not installed, but is 'triton'. "
            "Install it with: pip install triton"
        )


def use_triton(reference: Tensor, backend: str) -> bool:
    """Decide for one call; `reference` is the tensor whose device and dtype count.

    ``auto`` means Triton on CUDA tensors of a dtype the kernels support, plain torch otherwise; the environment
    variable ``WEFT_KERNELS_BACKEND`` may say otherwise, to compare the two on a whole model.

    Raises:
        KernelValueError: That variable is not one of ``auto``, ``triton``, ``torch``.
        KernelBackendError: ``triton`` was asked for on a device or dtype the kernels do not support.
    """
    if backend == "auto" and _BACKEND_VARIABLE in os.environ:
        backend = os.environ[_BACKEND_VARIABLE]
        check_choice(_BACKEND_VARIABLE, backend, BACKENDS)
    if backend == "torch":
        return False
    supported = reference.dtype in TRITON_DTYPES
    if backend == "auto":
        return reference.is_cuda and supported and triton_installed()
    if not supported:
        raise KernelBackendError(
            f"`backend` 'triton' must get float16, bfloat16 or float32, but got {reference.dtype}. "
            "Use backend='torch' for this dtype."
        )
    if not (reference.is_cuda or interpreting()):
        raise KernelBackendError(
            f"`backend` 'triton' must get CUDA tensors, but got {reference.device}. Use backend='auto', or set "
            f"{_INTERPRETER_VARIABLE}=1 before the first import to run the kernels on the CPU."
        )
    return True


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums over inputs of a dtype are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dot_precision(dtype: torch.dtype) -> str:
    """How Triton multiplies float32: exactly, unless torch's own matrix products may use TF32."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def architecture(device: torch.device) -> int:
    """Compute capability such as 90; 0 for anything but CUDA."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a GPU, over which sums are spread; some for the interpreter, which then splits them too."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 16


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which kernels are launched on the device of `tensor`."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
