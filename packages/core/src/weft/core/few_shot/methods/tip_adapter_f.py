"""Tip-Adapter-F: the keys of Tip-Adapter, trained for a few epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from weft.core.few_shot.head_config import SelectBy, register_head
from weft.core.few_shot.methods.tip_adapter import CacheHeadConfig, TipAdapter
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head


class TrainedCacheConfig(TrainingOptions, CacheHeadConfig):
    """What heads with trained keys have in common: by default AdamW at 0.001, 20 epochs and batches of 256.

    Unlike other heads they choose by validation loss, which did better on pretrained weights (docs/real_weights.md).

    Args:
        start: The alpha and beta that keys are trained at: `searched`, chosen by validation samples for the untrained
            cache; `given`, those of the configuration, as without validation samples. By default `given` where one of
            the two is given, else `searched`.
    """

    select_by: SelectBy = "loss"
    epsilon: float = 1e-4
    start: Literal["searched", "given"]

    @model_validator(mode="before")
    @classmethod
    def _given_values_are_the_start(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("start") is not None:
            return values
        return {**values, "start": "given" if {"alpha", "beta"} & values.keys() else "searched"}


@register_head
class TipAdapterFConfig(TrainedCacheConfig):
    """Tip-Adapter-F, whose code trains for 100 epochs on EuroSAT."""

    method: Literal["tip_adapter_f"] = "tip_adapter_f"

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """The keys."""
        return num_samples * width


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained by cross-entropy, and not normalised again.

    Source: Zhang et al. 2022 (Tip-Adapter), section 3.2. Difference: its code keeps the epoch that is best on the
    test set; here the validation split chooses, unless `selected_on="paper"`.
    """

    config_class = TipAdapterFConfig

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Cache the mean features, and train them."""
        super().fit_samples(samples, validation, seed)
        self.search_start(validation)
        train_head(self, [self.cache.keys], samples, self.config, validation=validation, seed=seed)
