"""Dual encoders: any text encoder and any vision tower, projected into one space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from weft.core.composites.nested_config import CompositeConfig, nested_config
from weft.core.composites.text_projection import CentredProjection, KernelProjection
from weft.core.composites.vision_tower import feature_width, spatial_features
from weft.core.errors import ConfigError

Pooling = Literal["mean", "pooler"]


class DualEncoderConfig(CompositeConfig):
    """Configuration of `DualEncoder`.

    Args:
        text_config: Config of a text model that has an encoder, or its dictionary with `model_type`.
        vision_config: Config of a vision tower, or its dictionary.
        projection_size: Width of the common space.
        text_pooling: `mean` averages the unmasked tokens; `pooler` takes the text model's own pooled output.
        initial_temperature: First value of the learned temperature; similarities are divided by it.
        text_keys: Texts that a kernel regression from pooled texts to the common space has as keys; with 0 that map is
            linear. See `weft.core.composites.text_projection.KernelProjection`.
        text_sharpness: How fast a key's weight falls with the distance.
        text_centred: Whether the linear map is a `CentredProjection`, of unit vectors of pooled texts less their mean.
    """

    model_type = "weft_dual_encoder"

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        projection_size: int = 512,
        text_pooling: Pooling = "mean",
        initial_temperature: float = 0.07,
        text_keys: int = 0,
        text_sharpness: float = 2.0,
        text_centred: bool = False,
        **kwargs: Any,
    ) -> None:
        self.text_config = nested_config(text_config or {"model_type": "clip_text_model"})
        self.vision_config = nested_config(vision_config or {"model_type": "clip_vision_model"})
        self.projection_size = projection_size
        self.text_pooling = text_pooling
        self.initial_temperature = initial_temperature
        self.text_keys = text_keys
        self.text_sharpness = text_sharpness
        self.text_centred = text_centred
        super().__init__(**kwargs)


@dataclass
class DualEncoderOutput(ModelOutput):
    """Features of both sides, each of length one.

    Attributes:
        text_embeds: Shape `(texts, projection_size)`, or None without texts.
        image_embeds: Shape `(images, projection_size)`, or None without images.
        logit_scale: What similarities are multiplied by, a scalar.
    """

    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    logit_scale: Tensor | None = None


class DualEncoder(PreTrainedModel):
    """Texts and images in one space, where those that belong together lie close.

    `similarity(t, v) = <W_t pool(text), W_v mean(image)> / (norm · norm)`, times a learned scale in training.

    Args:
        config: The configuration.

    Source: CLIP (Radford et al. 2021), section 2.3, with the pooling chosen by the config.
    """

    config_class = DualEncoderConfig
    main_input_name = "input_ids"
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    largest_scale = 100.0

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        self.text_model = _text_encoder(config.text_config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.text_projection = _text_projection(config)
        self.image_projection = nn.Linear(
            feature_width(config.vision_config), config.projection_size, bias=False
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.initial_temperature)))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        texts = getattr(self.text_projection, "values", self.text_projection)
        if module in (texts, self.image_projection) and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif module is self:
            nn.init.constant_(self.logit_scale, math.log(1 / self.config.initial_temperature))

    def get_input_embeddings(self) -> nn.Module:
        """The text model's token table."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text model's token table."""
        self.text_model.set_input_embeddings(value)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Features of texts, each of length one, shape `(texts, projection_size)`; see `pool_text`."""
        pooled = self.pool_text(input_ids, attention_mask)
        return functional.normalize(self.text_projection(pooled), dim=-1)

    def pool_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the text projection reads: texts as the text model pools them, shape `(texts, width)`.

        Args:
            input_ids: Shape `(texts, length)`.
            attention_mask: Shape `(texts, length)`; ones by default.

        Raises:
            ConfigError: If the config asks for a pooler that the text model lacks.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        output = self.text_model(input_ids=input_ids, attention_mask=mask)
        if self.config.text_pooling == "pooler":
            pooled: Tensor | None = getattr(output, "pooler_output", None)
            if pooled is None:
                raise ConfigError(
                    f"`text_pooling` may be 'pooler' only if the text model has a pooler, but "
                    f"{type(self.text_model).__name__} has none. Use 'mean'."
                )
            return pooled
        weights = mask[..., None].to(output.last_hidden_state.dtype)
        return (output.last_hidden_state * weights).sum(1) / weights.sum(1).clamp(min=1)

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Features of the vision tower alone, to be kept where the tower is frozen; see `spatial_features`."""
        return spatial_features(self.vision_tower, pixel_values)

    def encode_image(
        self, pixel_values: Tensor | None = None, visual_features: Tensor | None = None
    ) -> Tensor:
        """Features of images, each of length one, shape `(batch, projection_size)`; frames of one example are averaged.

        Args:
            pixel_values: Shape `(batch, images, channels, height, width)`, or without `images`.
            visual_features: What `encode_images` returns, instead of pixels; of any floating dtype.

        Raises:
            ValueError: Unless exactly one argument is given.
        """
        if (pixel_values is None) == (visual_features is None):
            raise ValueError(
                "exactly one of `pixel_values` and `visual_features` must be given, but "
                f"{'none' if pixel_values is None else 'both'} is. Features are what `encode_images` returns."
            )
        if pixel_values is not None:
            images = pixel_values[:, None] if pixel_values.dim() == 4 else pixel_values
            visual_features = self.encode_images(images)
        assert visual_features is not None
        wide = visual_features.to(self.image_projection.weight.dtype)
        return functional.normalize(self.image_projection(wide.flatten(1, -2).mean(1)), dim=-1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        visual_features: Tensor | None = None,
        **kwargs: Any,
    ) -> DualEncoderOutput:
        """Features of texts, of images, or of both, and the scale, which is at most 100.

        Arguments are those of `encode_text` and `encode_image`; `kwargs`, which trainers pass to every model, are not
        used.
        """
        has_images = pixel_values is not None or visual_features is not None
        return DualEncoderOutput(
            text_embeds=None if input_ids is None else self.encode_text(input_ids, attention_mask),
            image_embeds=self.encode_image(pixel_values, visual_features) if has_images else None,
            logit_scale=self.logit_scale.exp().clamp(max=self.largest_scale),
        )


def _text_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return AutoModelForTextEncoding.from_config(config)
    model = AutoModel.from_config(config)
    return model.get_encoder() if config.is_encoder_decoder else model


def _text_projection(config: DualEncoderConfig) -> nn.Module:
    width = config.text_config.hidden_size
    if config.text_keys:
        return KernelProjection(width, config.projection_size, config.text_keys, config.text_sharpness)
    if config.text_centred:
        return CentredProjection(width, config.projection_size)
    return nn.Linear(width, config.projection_size, bias=False)


AutoConfig.register(DualEncoderConfig.model_type, DualEncoderConfig)
AutoModel.register(DualEncoderConfig, DualEncoder)
