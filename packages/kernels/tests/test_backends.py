import pytest
import torch

from weft.kernels.backends import use_triton
from weft.kernels.errors import KernelBackendError, KernelValueError


def test_the_environment_says_what_auto_means(monkeypatch):
    values = torch.zeros(1)
    assert not use_triton(values, "auto")
    monkeypatch.setenv("WEFT_KERNELS_BACKEND", "torch")
    assert not use_triton(values, "auto")
    monkeypatch.setenv("WEFT_KERNELS_BACKEND", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelBackendError, match="must get CUDA tensors"):
        use_triton(values, "auto")
    assert not use_triton(values, "torch"), "what a call says counts more"
    monkeypatch.setenv("WEFT_KERNELS_BACKEND", "cuda")
    with pytest.raises(KernelValueError, match="`WEFT_KERNELS_BACKEND` must be one of"):
        use_triton(values, "auto")
