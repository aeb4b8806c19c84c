"""2SFS: the norms of both towers are tuned first, then a linear classifier on the features that they give."""

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
        """The options of a stage, with its share of the steps and its own schedule."""
        share = self.first_share if first else 1 - self.first_share
        steps = None if self.steps_per_shot is None else self.steps_per_shot * share
        return self.model_copy(update={"steps_per_shot": steps, "epochs": round(self.epochs * share)})

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """The classifier."""
        return num_classes * width


class TwoSFS(AdaptedHead):
    """`z = scale · f' norm(C)`, with `f'` through the tuned norms and `C` a classifier that starts as the class names.

    In the first stage `z = scale · f' g'`, with `g'` of the class names through the tuned norms. In the second the
    encoder is frozen, and the features of all views are computed once. Other classes are scored by `f' g'`.

    Source: Farina et al., CVPR 2025 (2SFS), and its code (github.com/FarinaMatteo/rethinking_fewshot_vlms), which gives
    AdamW at 2e-4 with a decay of 0.01, batches of 32, 300 steps per shot, and 0.6 of them for the norms. Differences:
    in the second stage the code draws new augmentations; class features are means over all given templates, where the
    code takes one; rates fall to 0, there to 1e-6; nothing has half precision.
    """

    config_class = TwoSFSConfig
    classifier: nn.Parameter

    def class_features(self) -> Tensor:
        """The class names through the norms while these are tuned, then the classifier."""
        if any(value.requires_grad for value in self.held.parameters()):
            return super().class_features()
        return functional.normalize(self.classifier, dim=-1)

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Tune the norms, then train the classifier."""
        self.check_texts()
        with self.wearing() as adaptable:
            self.train_units(samples, validation, seed, self.config.stage(first=True))
            self.read_classes(adaptable)
            drawn, chosen_by = self.made_before(samples, validation, adaptable.image_features)
            options = self.config.stage(first=False)
            train_head(self, [self.classifier], drawn, options, validation=chosen_by, seed=seed)

    def read_classes(self, adaptable: Adaptable) -> None:
        """Start the classifier from the class names."""
        super().read_classes(adaptable)
        with torch.no_grad():
            self.classifier.copy_(self.named)

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        super()._hold(tensors)
        self.classifier = nn.Parameter(self.class_weights.detach().clone(), requires_grad=False)
