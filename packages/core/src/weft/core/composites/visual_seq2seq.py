"""VL-BART and VL-T5: any BART or T5 with visual tokens after the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from weft.core.composites.encoder_layout import EncoderLayout
from weft.core.composites.nested_config import CompositeConfig, nested_config
from weft.core.composites.prompt_place import PromptPlace
from weft.core.composites.vision_tower import spatial_features
from weft.core.composites.visual_embedding import VisualEmbedding, pool_grid
from weft.core.errors import ConfigError


class VisualSeq2SeqConfig(CompositeConfig):
    """Configuration of `VisualSeq2Seq`.

    Args:
        language_config: Config of a BART or T5 model, or its dictionary with `model_type`.
        vision_config: Config of a vision tower kept inside the model, or None if features are given from outside.
        feature_size: Width of the visual features. By default the tower's last width.
        num_visual_tokens: Visual tokens per image; a larger square grid is max-pooled to it.
        num_images: Images that one text may speak of.
    """

    model_type = "weft_visual_seq2seq"

    def __init__(
        self,
        language_config: PreTrainedConfig | dict[str, Any] | None = None,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        feature_size: int = 2048,
        num_visual_tokens: int = 36,
        num_images: int = 2,
        **kwargs: Any,
    ) -> None:
        self.language_config = nested_config(language_config or {"model_type": "bart"})
        self.vision_config = None if vision_config is None else nested_config(vision_config)
        self.feature_size = feature_size
        self.num_visual_tokens = num_visual_tokens
        self.num_images = num_images
        kwargs["is_encoder_decoder"] = True
        super().__init__(**kwargs)


class VisualSeq2Seq(PreTrainedModel):
    """An encoder-decoder language model that reads visual tokens after its text.

    Takes precomputed `visual_features`, or `pixel_values` when a vision tower is inside.

    Args:
        config: The configuration.

    Source: VL-Adapter (Sung et al. 2022), section 3; VL-T5 (Cho et al. 2021).
    """

    config_class = VisualSeq2SeqConfig
    main_input_name = "input_ids"
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ("BartEncoderLayer", "BartDecoderLayer", "T5Block")

    def __init__(self, config: VisualSeq2SeqConfig) -> None:
        super().__init__(config)
        self.language_model = AutoModelForSeq2SeqLM.from_config(config.language_config)
        vision, language = config.vision_config, config.language_config
        self.vision_tower = None if vision is None else AutoModel.from_config(vision)
        width = language.hidden_size
        norm, eps = nn.LayerNorm, 1e-5
        if language.model_type != "bart":
            norm, eps = type(self.language_model.encoder.final_layer_norm), language.layer_norm_epsilon
        self.visual_embedding = VisualEmbedding(
            config.feature_size, width, num_images=config.num_images, norm=norm, norm_eps=eps
        )
        self.encoder_prompt = PromptPlace(width)
        self._layout = EncoderLayout(self.language_model)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        std = getattr(self.config.language_config, "init_std", None) or 0.02
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Embedding:
        """The language model's token table."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token table."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.get_output_embeddings()

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Run the vision tower; see `spatial_features`.

        Raises:
            ConfigError: If the model has no vision tower.
        """
        if self.vision_tower is None:
            raise ConfigError(
                "`pixel_values` needs a vision tower, but this model has none. Give `visual_features`, or set "
                "`vision_config` in the model's config."
            )
        return spatial_features(self.vision_tower, pixel_values)

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Build the encoder's input: embeddings `(batch, prompt + text + visual, hidden_size)` and their mask.

        Args:
            input_ids: Shape `(batch, text)`, padded on the right.
            attention_mask: Shape `(batch, text)`; ones by default.
            visual_features: Shape `(batch, images, tokens, feature_size)`, or `(batch, tokens, feature_size)`; of
                any floating dtype.
            pixel_values: Shape `(batch, images, channels, height, width)`, instead of features.
            boxes: Shape `(batch, images, num_visual_tokens, 4)`.
        """
        tokens = self.get_input_embeddings()
        embeds = tokens(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        prompt = self.encoder_prompt(embeds)
        self._layout.set(prompt=prompt.shape[1], text=input_ids.shape[1])
        if prompt.shape[1]:
            embeds = torch.cat([prompt, embeds], dim=1)
            mask = torch.cat([(prompt != 0).any(dim=-1).to(mask.dtype), mask], dim=1)
        if pixel_values is not None:
            visual_features = self.encode_images(pixel_values)
        if visual_features is None:
            return embeds, mask
        if visual_features.dim() == 3:
            visual_features = visual_features[:, None]
        visual_features = pool_grid(visual_features, self.config.num_visual_tokens)
        visual = self.visual_embedding(visual_features.to(embeds.dtype), tokens, boxes)
        return torch.cat([embeds, visual], dim=1), torch.cat([mask, mask.new_ones(visual.shape[:2])], dim=1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        boxes: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """The language model's output for targets; what `embed` does not know is passed on.

        `labels`, of shape `(batch, target)`, are not scored where they are -100; `decoder_input_ids` are by default the
        labels shifted right.
        """
        embeds, mask = self.embed(input_ids, attention_mask, visual_features, pixel_values, boxes)
        return self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            labels=labels,
            decoder_input_ids=decoder_input_ids,
            **kwargs,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        boxes: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Token ids by the language model's own `generate`, shape `(batch * num_return_sequences, length)`."""
        embeds, mask = self.embed(input_ids, attention_mask, visual_features, pixel_values, boxes)
        return self.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **kwargs)


AutoConfig.register(VisualSeq2SeqConfig.model_type, VisualSeq2SeqConfig)
AutoModel.register(VisualSeq2SeqConfig, VisualSeq2Seq)
