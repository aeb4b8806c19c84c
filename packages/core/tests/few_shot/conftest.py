"""Small labelled features for the tests of few-shot heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

Task = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Class weights, training features and labels, other features and labels, around drifting class means."""

    def make(
        classes: int = 6,
        shots: int = 4,
        width: int = 24,
        *,
        queries: int = 20,
        noise: float = 0.9,
        names: float = 1.0,
        seed: int = 0,
    ) -> Task:
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(classes, width, generator=generator)
        # The class names point only roughly to where the images lie.
        weights = functional.normalize(
            means + names * torch.randn(classes, width, generator=generator), dim=-1
        )

        def draw(each: int) -> tuple[Tensor, Tensor]:
            labels = torch.arange(classes).repeat_interleave(each)
            noisy = means[labels] + noise * torch.randn(len(labels), width, generator=generator)
            return functional.normalize(noisy, dim=-1), labels

        return (weights, *draw(shots), *draw(queries))

    return make
