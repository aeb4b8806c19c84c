"""Adapter bottleneck, Kronecker and cache-logit operations for torch, with Triton kernels."""
