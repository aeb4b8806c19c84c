"""Adapter bottleneck, Kronecker and cache-logit operations for torch, with Triton kernels."""

from weft.kernels.bottleneck.api import adapter_bottleneck
from weft.kernels.bottleneck.weights import BottleneckWeights
from weft.kernels.cache.api import affinity_difference, cache_class_sums, cache_logits
from weft.kernels.cache.layout import SortedKeys, sort_by_class
from weft.kernels.kronecker.api import kron, kronecker_bottleneck, kronecker_linear, phm_weight
from weft.kernels.kronecker.factors import LowRankKronecker
from weft.kernels.routed_rows import RoutedRows, route_offsets, route_rows

__all__ = [
    "BottleneckWeights",
    "LowRankKronecker",
    "RoutedRows",
    "SortedKeys",
    "adapter_bottleneck",
    "affinity_difference",
    "cache_class_sums",
    "cache_logits",
    "kron",
    "kronecker_bottleneck",
    "kronecker_linear",
    "phm_weight",
    "route_offsets",
    "route_rows",
    "sort_by_class",
]
