"""Adapter bottleneck, Kronecker and cache-logit operations for torch, with Triton kernels."""

from weft.kernels.bottleneck.api import adapter_bottleneck

__all__ = ["adapter_bottleneck"]
