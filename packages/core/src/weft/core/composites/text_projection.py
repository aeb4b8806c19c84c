"""What a regression takes pooled texts into the space of images by: a linear map, or a kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class KernelProjection(nn.Module):
    """`f(t) = Σ_j exp(s (cos(t - m, k_j) - 1)) v_j`, with `t` the unit vector of the pooled text.

    Keys and mean are fixed; the values can be trained, and as the weight of a linear map they are a site of LoRA's.

    Args:
        in_features: Width of pooled texts.
        out_features: Width of the common space.
        num_keys: Number of texts that the regression was fitted on.
        sharpness: `s`.
    """

    mean: Tensor
    keys: Tensor

    def __init__(self, in_features: int, out_features: int, num_keys: int, sharpness: float) -> None:
        super().__init__()
        self.in_features, self.sharpness = in_features, sharpness
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("keys", torch.zeros(num_keys, in_features))
        self.values = nn.Linear(num_keys, out_features, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Shape `(texts, in_features)` to `(texts, out_features)`."""
        return self.values(self.affinity(pooled))

    def affinity(self, pooled: Tensor) -> Tensor:
        """How near texts are to the keys, from `exp(-2 s)` to 1, shape `(texts, keys)`."""
        texts = functional.normalize(pooled, dim=-1) - self.mean
        return (self.sharpness * (functional.normalize(texts, dim=-1) @ self.keys.mT - 1)).exp()

    @torch.no_grad()
    def fit(self, texts: Tensor, targets: Tensor, ridge: float) -> None:
        """Set mean, keys and values, the ridge regression of targets on the affinities.

        Args:
            texts: Pooled texts, shape `(keys, in_features)`.
            targets: Shape `(keys, out_features)`.
            ridge: Added to the diagonal.
        """
        unit = functional.normalize(texts, dim=-1)
        self.mean.copy_(unit.mean(0))
        self.keys.copy_(functional.normalize(unit - self.mean, dim=-1))
        system = self.affinity(texts).double() + ridge * torch.eye(len(texts), dtype=torch.float64)
        self.values.weight.copy_(torch.linalg.solve(system, targets.double()).mT)


class CentredProjection(nn.Module):
    """`f(t) = W (t - m)`, with `t` the unit vector of the pooled text.

    The mean is fixed. Without it, texts of one kind, which lie close together, would all be moved to one side.

    Args:
        in_features: Width of pooled texts.
        out_features: Width of the common space.
    """

    mean: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_features))
        self.values = nn.Linear(in_features, out_features, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Shape `(texts, in_features)` to `(texts, out_features)`."""
        return self.values(functional.normalize(pooled, dim=-1) - self.mean)

    @torch.no_grad()
    def fit(self, texts: Tensor, targets: Tensor, ridge: float) -> None:
        """Set mean and map, the ridge regression of targets on centred unit texts; see `KernelProjection.fit`."""
        unit = functional.normalize(texts, dim=-1).double()
        self.mean.copy_(unit.mean(0))
        centred = unit - unit.mean(0)
        system = centred.mT @ centred + ridge * torch.eye(unit.shape[1], dtype=torch.float64)
        self.values.weight.copy_(torch.linalg.solve(system, centred.mT @ targets.double()).mT)
