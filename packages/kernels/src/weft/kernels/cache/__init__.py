"""Logits of key-value cache models: exponential affinities summed per class."""
