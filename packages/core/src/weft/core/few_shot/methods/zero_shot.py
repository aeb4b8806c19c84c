"""Zero-shot classification: the class names alone."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.samples import Samples


@register_head
class ZeroShotConfig(HeadConfig):
    """Nothing to choose: `z = scale · f W`."""

    method: Literal["zero_shot"] = "zero_shot"


class ZeroShotHead(FewShotHead):
    """The cosine of images and class names, `z = scale · f W`.

    Source: CLIP (Radford et al. 2021), section 3.1.
    """

    config_class = ZeroShotConfig
    needs_fit = False

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Nothing: the samples are not used."""

    def scores(self, features: Tensor) -> Tensor:
        """The class names' logits."""
        return self.zero_shot(features)
