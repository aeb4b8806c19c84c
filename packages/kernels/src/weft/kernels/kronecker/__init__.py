"""Kronecker products and sums of them: weights, linear maps and whole adapters."""
