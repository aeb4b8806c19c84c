"""Kernel tests: on CUDA as they are, elsewhere through Triton's interpreter in a session of their own.

The interpreter is chosen by an environment variable when kernels are first imported, so these tests do not
run beside the others: without a GPU they need ``TRITON_INTERPRET=1`` from the start (nox session
``kernels_interpret``).
"""

import importlib.util
import os

import pytest
import torch

_INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"


def _reason_to_skip():
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: nox -s kernels_interpret installs it"
    if not torch.cuda.is_available() and not _INTERPRET:
        return "no CUDA device, and TRITON_INTERPRET=1 is not set: run nox -s kernels_interpret"
    return None


def pytest_collection_modifyitems(items):
    reason = _reason_to_skip()
    if reason is not None:
        for item in items:
            if "interpret" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason=reason))


def _exact_bfloat16_products():
    """The interpreter multiplies the bit patterns of bfloat16; let it widen them first, which is exact."""
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    original = interpreter.InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.view(np.uint16).astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        return original(self, widened(a), widened(b), d, input_precision, max_num_imprecise_acc)

    interpreter.InterpreterBuilder.create_dot = create_dot


if _reason_to_skip() is None and _INTERPRET:
    _exact_bfloat16_products()


@pytest.fixture
def device():
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def dtype(request):
    return request.param


@pytest.fixture
def poisoned(monkeypatch):
    """Fill every uninitialised floating tensor with NaN, so that an entry no kernel writes is noticed."""
    empty, empty_like, new_empty = torch.empty, torch.empty_like, torch.Tensor.new_empty

    def fill(tensor):
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", lambda *a, **k: fill(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: fill(empty_like(*a, **k)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: fill(new_empty(*a, **k)))
