"""Cross-modal linear probe: one linear head, trained on images and class names alike."""

from __future__ import annotations

from itertools import product
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head


@register_head
class CrossModalProbeConfig(TrainingOptions, HeadConfig):
    """Cross-modal linear probe; half of every batch is class names.

    Args:
        rates: Learning rates that validation samples choose from.
        decays: Weight decays that they choose from.
        zero_shot_share: Share of the class weights in the mixture with the trained head (0.5 is the paper's WiSE-FT).
    """

    method: Literal["cross_modal_probe"] = "cross_modal_probe"
    weight_decay: float = Field(default=0.0, ge=0)
    epochs: int = Field(default=100, ge=0)
    batch_size: int = Field(default=8, gt=0)
    warmup_epochs: int = Field(default=1, ge=0)
    rates: tuple[float, ...] = (1e-3, 1e-4)
    decays: tuple[float, ...] = (0.0, 1e-2)
    zero_shot_share: float = Field(default=0.0, ge=0, le=1)

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """One vector per class."""
        return num_classes * width


class CrossModalProbe(FewShotHead):
    """`z = scale · f V`, with V trained from W on images and on the class names alike.

    Source: Lin et al. 2023 (Multimodality helps unimodality), section 3. Differences: training is counted in
    passes over the images, not in iterations, and validation chooses among the passes.
    """

    config_class = CrossModalProbeConfig
    weight: nn.Parameter

    def build(self, num_samples: int) -> None:
        """Start from the class weights."""
        self.weight = nn.Parameter(self.class_weights.clone(), requires_grad=False)
        self.selected = {"learning_rate": self.config.learning_rate, "weight_decay": self.config.weight_decay}

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train from the class weights, with each rate and decay where validation samples choose."""
        if validation is None:
            self._train(samples, None, seed, self.config)
            return
        best: tuple[float, float] | None = None
        kept = self.weight.detach().clone()
        for rate, decay in product(self.config.rates, self.config.decays):
            choice = {"learning_rate": rate, "weight_decay": decay}
            self._train(samples, validation, seed, self.config.model_copy(update=choice))
            score = validation.score(self.scores(validation.mean()), self.config.select_by)
            if best is None or score > best:
                best, self.selected, kept = score, choice, self.weight.detach().clone()
        self.weight.data.copy_(kept)

    def _train(
        self, samples: Samples, validation: Samples | None, seed: int, options: CrossModalProbeConfig
    ) -> None:
        self.weight.data.copy_(self.class_weights)
        generator = torch.Generator().manual_seed(seed)

        def loss(features: Tensor, labels: Tensor) -> Tensor:
            names = torch.randint(self.num_classes, labels.shape, generator=generator).to(labels.device)
            both = torch.cat([features, self.class_weights[names]])
            logits = self.config.logit_scale * (both @ self.weight.T)
            return functional.cross_entropy(logits, torch.cat([labels, names]))

        train_head(self, [self.weight], samples, options, validation=validation, seed=seed, loss=loss)

    def scores(self, features: Tensor) -> Tensor:
        """The cosine with the trained weights."""
        weights = torch.lerp(self.weight, self.class_weights, self.config.zero_shot_share)
        return self.config.logit_scale * (features @ weights.T)
