"""Tip-Adapter-F: the keys of Tip-Adapter, trained for a few epochs."""

from __future__ import annotations

from typing import Literal

from weft.core.few_shot.head_config import register_head
from weft.core.few_shot.methods.tip_adapter import CacheHeadConfig, TipAdapter
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head


@register_head
class TipAdapterFConfig(TrainingOptions, CacheHeadConfig):
    """Tip-Adapter-F's own defaults: AdamW, rate 0.001, 20 epochs (EuroSAT: 100), batches of 256."""

    method: Literal["tip_adapter_f"] = "tip_adapter_f"
    epsilon: float = 1e-4

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """The keys."""
        return num_samples * width


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained by cross-entropy; they are not normalised again.

    Source: Zhang et al. 2022 (Tip-Adapter), section 3.2. Difference: its code keeps the epoch that is best on the
    test set; here the validation split chooses, unless `selected_on="paper"`.
    """

    config_class = TipAdapterFConfig

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Cache the mean features, and train them."""
        super().fit_samples(samples, validation, seed)
        train_head(self, [self.cache.keys], samples, self.config, validation=validation, seed=seed)


TipAdapterFConfig.head = TipAdapterF
