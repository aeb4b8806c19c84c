"""Image classifiers of several tasks: any vision model, and a linear map of its pooled features for each task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from weft.core.composites.nested_config import CompositeConfig, nested_config
from weft.core.composites.vision_tower import feature_width, pooled_features

_FRONT = "task_"  # a task may be called as an attribute of modules is, such as `train`


class ImageClassifierConfig(CompositeConfig):
    """Configuration of `ImageClassifier`.

    Args:
        vision_config: Config of a vision model, or its dictionary with `model_type`.
        classes: Task to its number of classes, in the order of the tasks.
        initial_spread: Standard deviation of the heads' first weights.
    """

    model_type = "weft_image_classifier"

    def __init__(
        self,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        classes: Mapping[str, int] | None = None,
        initial_spread: float = 0.01,
        **kwargs: Any,
    ) -> None:
        self.vision_config = nested_config(vision_config or {"model_type": "vit"})
        self.classes = dict(classes or {})
        self.initial_spread = initial_spread
        super().__init__(**kwargs)


@dataclass
class ImageClassifierOutput(ModelOutput):
    """Scores of all classes of all tasks.

    Attributes:
        logits: Shape `(images, classes of all tasks)`, task after task.
    """

    logits: Tensor | None = None


class ImageClassifier(PreTrainedModel):
    """A vision model with a linear head for each task: `logits_t = W_t pool(image) + b_t`.

    A head belongs to its task: where no row of a step is of that task, an optimiser leaves it alone.

    Args:
        config: The configuration.
        tower: The vision model, such as one with its weights; by default a new one of the config.
    """

    config_class = ImageClassifierConfig
    main_input_name = "pixel_values"
    base_model_prefix = ""
    supports_gradient_checkpointing = True

    def __init__(self, config: ImageClassifierConfig, tower: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        width = feature_width(config.vision_config)
        self.heads = nn.ModuleDict(
            {f"{_FRONT}{task}": nn.Linear(width, count) for task, count in config.classes.items()}
        )
        self.vision_tower = AutoModel.from_config(config.vision_config, **tower_options(config.vision_config))
        self.post_init()
        if tower is not None:
            self.vision_tower = tower

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear) and any(module is head for head in self.heads.values()):
            nn.init.normal_(module.weight, std=self.config.initial_spread)
            nn.init.zeros_(module.bias)

    @staticmethod
    def task_of(name: str) -> str | None:
        """The task that a parameter belongs to, by its name in the model, or None for one of all tasks."""
        words = name.split(".")
        return words[1].removeprefix(_FRONT) if words[0] == "heads" else None

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> ImageClassifierOutput:
        """Scores of images, shape `(images, channels, height, width)`; `kwargs` go to the vision model."""
        pooled = pooled_features(self.vision_tower(pixel_values=pixel_values, **kwargs))
        wide = pooled.to(next(self.heads.parameters()).dtype)
        return ImageClassifierOutput(logits=torch.cat([head(wide) for head in self.heads.values()], dim=1))


def tower_options(config: PreTrainedConfig) -> dict[str, Any]:
    """Arguments that a vision model is made and loaded with: without a pooler that classifiers are not trained on.

    That of a ViT is a linear map that many files lack; its class token is what its own classifier reads.
    """
    kind = MODEL_MAPPING.get(type(config), None)
    if kind is None or "add_pooling_layer" not in inspect.signature(kind.__init__).parameters:
        return {}
    with torch.device("meta"):
        pooler = getattr(kind(config), "pooler", None)
    learned = pooler is not None and any(isinstance(part, nn.Linear) for part in pooler.modules())
    return {"add_pooling_layer": False} if learned else {}


AutoConfig.register(ImageClassifierConfig.model_type, ImageClassifierConfig)
AutoModel.register(ImageClassifierConfig, ImageClassifier)
