"""2SFS: first the norms of both towers are tuned, then a linear classifier on the features that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.adapted_head import AdaptedHead, AdaptedHeadConfig
from weft.core.few_shot.head_config import register_head
from weft.core.few_shot.image_head import Adaptable
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head
from weft.core.units.norms import NormsConfig


@register_head
class TwoSFSConfig(AdaptedHeadConfig):
    """2SFS, whose settings are the same for every data set and number of images.

    Args:
        first_share: Share of the steps that the norms are tuned for.
    """

    method: Literal["two_sfs"] = "two_sfs"
    steps_per_shot: int | None = Field(default=300, ge=0)
    first_share: float = Field(default=0.6, ge=0, le=1)

    def units(self) -> Any:
        """The norms of the chosen towers."""
        return NormsConfig(towers=self.towers)

    def stage(self, *, first: bool) -> TrainingOptions:
        """The options of a stage, which has its share of the steps and a schedule of its own."""
        share = self.first_share if first else 1 - self.first_share
        steps = None if self.steps_per_shot is None else self.steps_per_shot * share
        return self.model_copy(update={"steps_per_shot": steps, "epochs": round(self.epochs * share)})

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """The classifier."""
        return num_classes * width


class TwoSFS(AdaptedHead):
    """`z = scale · f' norm(C)`, with `f'` through the tuned norms and `C` a classifier that starts as the class names.

    In the first stage `z = scale · f' g'`, with `g'` of the class names through the tuned norms. In the second the
    encoder rests: the features of all views are made once. Other classes are known by `g'` alone.

    Source: Farina et al., CVPR 2025 (2SFS), and its code (github.com/FarinaMatteo/rethinking_fewshot_vlms), which gives
    AdamW at 2e-4 with a decay of 0.01, batches of 32, 300 steps for each image of a class, and 0.6 of them for the
    norms. Differences: in the second stage the code draws new augmentations; the class features are the mean over all
    templates that are given, where the code takes one; rates fall to 0, there to 1e-6; there is no half precision.
    """

    config_class = TwoSFSConfig
    classifier: nn.Parameter

    def class_features(self) -> Tensor:
        """The class names through the norms while these are tuned, then the classifier."""
        if any(value.requires_grad for value in self.held.parameters()):
            return super().class_features()
        return functional.normalize(self.classifier, dim=-1)

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Both stages."""
        with self.fitting() as adaptable:
            self.train_units(samples, validation, seed, self.config.stage(first=True))
            self.read_classes(adaptable)
            drawn = self.made_before(samples, adaptable.image_features)
            chosen_by = None if validation is None else self.made_before(validation, adaptable.image_features)
            options = self.config.stage(first=False)
            train_head(self, [self.classifier], drawn, options, validation=chosen_by, seed=seed)

    def read_classes(self, adaptable: Adaptable) -> None:
        """Let the classifier be the class names."""
        super().read_classes(adaptable)
        with torch.no_grad():
            self.classifier.copy_(self.named)

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        super()._hold(tensors)
        self.classifier = nn.Parameter(self.class_weights.detach().clone(), requires_grad=False)


TwoSFSConfig.head = TwoSFS
