"""Linear probe: logistic regression on image features, without the class names."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.grid import bounds
from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.samples import Samples


@register_head
class LinearProbeConfig(HeadConfig):
    """Multinomial logistic regression.

    Args:
        penalty: Strength of the L2 penalty where no validation samples choose one.
        penalties: Strengths that validation samples choose from.
        iterations: Limit of L-BFGS iterations.
    """

    method: Literal["linear_probe"] = "linear_probe"
    penalty: float = Field(default=1.0, gt=0)
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
    iterations: int = Field(default=200, gt=0)

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """A vector and a bias per class."""
        return num_classes * (width + 1)


class LinearProbe(FewShotHead):
    """`z = f V + c`, with V and c that minimise the summed cross-entropy plus `penalty / 2 · |V|²`.

    Source: Radford et al. 2021 (CLIP), section 3.2, which chooses the penalty on a validation split too.
    """

    config_class = LinearProbeConfig

    def build(self, num_samples: int) -> None:
        """Make a classifier of zeros."""
        self.linear = nn.Linear(self.width, self.num_classes).requires_grad_(False)
        self.selected = {"penalty": self.config.penalty}

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Minimise the loss, at every penalty where validation samples choose."""
        if validation is None:
            self._minimise(samples, self.config.penalty)
            return
        best: tuple[float, float] | None = None
        kept: dict[str, Tensor] = {}
        for penalty in self.config.penalties:
            self._minimise(samples, penalty)
            score = validation.score(self.scores(validation.mean()), self.config.select_by)
            if best is None or score > best:
                best, self.selected = score, {"penalty": penalty}
                kept = {name: value.clone() for name, value in self.linear.state_dict().items()}
        self.linear.load_state_dict(kept)
        at_bounds = bounds(self.selected, {"penalty": self.config.penalties})
        self.selection = replace(self.selection, at_bounds=at_bounds)

    def _minimise(self, samples: Samples, penalty: float) -> None:
        features, labels = samples.flat()
        for value in self.linear.parameters():
            nn.init.zeros_(value)
        self.linear.requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            self.linear.parameters(), max_iter=self.config.iterations, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(self.linear(features), labels, reduction="sum")
            loss = loss + penalty / 2 * self.linear.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        optimizer.zero_grad()
        self.linear.requires_grad_(False)

    def scores(self, features: Tensor) -> Tensor:
        """The classifier's logits."""
        return self.linear(features)
