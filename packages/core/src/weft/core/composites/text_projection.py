"""What takes pooled texts into the space of images: a linear map, or a kernel regression."""

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
        values: Tensor = self.values(self.affinity(pooled))
        return values

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


@torch.no_grad()
def fit_linear(projection: nn.Linear, texts: Tensor, targets: Tensor, ridge: float) -> None:
    """Set a linear map without bias to the ridge regression of targets on centred unit texts.

    Args:
        projection: The map.
        texts: Pooled texts, shape `(texts, in_features)`.
        targets: Shape `(texts, out_features)`.
        ridge: Added to the diagonal.
    """
    unit = functional.normalize(texts, dim=-1).double()
    centred = unit - unit.mean(0)
    system = centred.mT @ centred + ridge * torch.eye(unit.shape[1], dtype=torch.float64)
    projection.weight.copy_(torch.linalg.solve(system, centred.mT @ targets.double()).mT)
