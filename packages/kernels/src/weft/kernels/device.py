"""Making a tensor's device the current one around a kernel launch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which kernels are launched on the device of `tensor`."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
