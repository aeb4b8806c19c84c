"""BLIP for retrieval as it was trained: a temperature, the token that asks for a match, and videos as frames."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, BlipConfig, BlipForImageTextRetrieval
from transformers.utils import ModelOutput

from weft.core.errors import ConfigError


class BlipRetrievalConfig(BlipConfig):
    """Configuration of `BlipRetrieval`.

    Beside the fields of `BlipConfig` it has `temperature`, the first value of the similarities' divisor, and
    `encode_token_id`, the token [ENC] that takes the first place of a text that is compared with an image (30523 in
    BLIP; a tokenizer need not know it). The published weights want 12 heads in `text_config`, where `transformers`
    has 8 by default, and `layer_norm_eps` 1e-6 in `vision_config`.
    """

    model_type = "weft_blip_retrieval"
    temperature: float = 0.07
    encode_token_id: int = 30523


@dataclass
class VideoFeatures(ModelOutput):
    """What the vision tower makes of a batch of images or videos.

    Attributes:
        tokens: All tokens of all frames, shape `(batch, frames * tokens, width)`.
        frames: Feature of every frame, of length one, shape `(batch, frames, size)`.
        feature: Feature of the whole, of length one, shape `(batch, size)`.
    """

    tokens: Tensor | None = None
    frames: Tensor | None = None
    feature: Tensor | None = None


class BlipWriting:
    """What BLIPs that write have in common: passes through the text decoder."""

    config: Any
    text_decoder: Any
    vision_model: nn.Module

    @property
    def vision_tower(self) -> nn.Module:
        """The tower that reads pixels."""
        return self.vision_model

    def forward(self, *args: Any, compute: Callable[[Any], Any] | None = None, **kwargs: Any) -> Any:
        """The parent's forward, or anything else in one call of the model; see `BlipRetrieval.forward`."""
        return super().forward(*args, **kwargs) if compute is None else compute(self)  # type: ignore[misc]

    def decode(self, ids: Tensor, mask: Tensor, states: Tensor, states_mask: Tensor) -> Tensor:
        """Logits after every token of texts that look at states, shape `(texts, length, vocabulary)`."""
        return self.text_decoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=states,
            encoder_attention_mask=states_mask,
            is_decoder=True,
        ).logits

    def summed_losses(self, logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Smoothed cross-entropy of all tokens but the first, summed over each text; padding is not scored."""
        labels = tokens[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        smoothing = self.config.text_config.label_smoothing
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), reduction="none", label_smoothing=smoothing
        )
        return losses.view(labels.shape).sum(dim=1)

    def write(self, start: Tensor, states: Tensor, states_mask: Tensor, **options: Any) -> Tensor:
        """What the decoder writes after `start` while it looks at states, `start` included."""
        text = self.config.text_config
        return self.text_decoder.generate(
            input_ids=start,
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=states,
            encoder_attention_mask=states_mask,
            **options,
        )


class BlipRetrieval(BlipForImageTextRetrieval):
    """`BlipForImageTextRetrieval` with the passes of BLIP's own fine-tuning and evaluation.

    Parameter names are those of the parent, with `temp` beside them, so its checkpoints can be loaded.

    Args:
        config: The configuration.

    Source: BLIP (Li et al. 2022), section 3.2; the frames of videos as in UniAdapter (Lu et al., ICLR 2024).
    """

    config_class = BlipRetrievalConfig

    def __init__(self, config: BlipRetrievalConfig) -> None:
        super().__init__(config)
        check_encode_token(config)
        self.temp = nn.Parameter(torch.tensor(float(config.temperature)))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and hasattr(self, "temp"):
            self.temp.fill_(self.config.temperature)

    @property
    def vision_tower(self) -> nn.Module:
        """The tower that reads pixels."""
        return self.vision_model

    @property
    def logit_scale(self) -> Tensor:
        """What similarities are multiplied by."""
        return 1 / self.temp

    def encode_video(self, pixel_values: Tensor) -> VideoFeatures:
        """Tokens and features of images or videos.

        `feature = norm(P_v(mean_t CLS_t))`, and a frame's own is `norm(P_v(CLS_t))`; the tokens of the frames follow
        one another without a position of their own.

        Args:
            pixel_values: Shape `(batch, frames, 3, height, width)`, or without `frames`.

        Raises:
            ConfigError: If the pixels do not have the config's size, which must be a multiple of the patch.
        """
        hidden = frame_tokens(self, pixel_values)
        classes = hidden[:, :, 0]
        return VideoFeatures(
            tokens=hidden.flatten(1, 2),
            frames=functional.normalize(self.vision_proj(classes), dim=-1),
            feature=functional.normalize(self.vision_proj(classes.mean(dim=1)), dim=-1),
        )

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """`encode_video(...).feature`, shape `(batch, size)`."""
        feature = self.encode_video(pixel_values).feature
        assert feature is not None
        return feature

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Features of texts read alone, of length one, shape `(texts, size)`."""
        hidden = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return functional.normalize(self.text_proj(hidden[:, 0]), dim=-1)

    def match(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        tokens: Tensor,
        frame_weights: Tensor | None = None,
    ) -> Tensor:
        """Whether each text belongs to the image beside it: logits of "no" and "yes", shape `(pairs, 2)`.

        Args:
            input_ids: Shape `(pairs, length)`; the first token is overwritten with [ENC].
            attention_mask: Shape `(pairs, length)`.
            tokens: `encode_video(...).tokens` of each pair's image.
            frame_weights: Weight of each frame, shape `(pairs, frames)`, for the unit `frame_attention`.

        Raises:
            ConfigError: If weights are given to a model without the unit.
        """
        hidden = grounded_states(self, input_ids, attention_mask, tokens, frame_weights)
        return self.itm_head(hidden[:, 0])

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        compute: Callable[[BlipRetrieval], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Match every text with the image beside it, or compute anything else in one call of the model.

        `compute` is called with the model instead, so that wrappers such as data parallelism see one forward pass,
        however many the objective makes. Other arguments are those of `match` and `encode_video`; `kwargs`, which
        trainers pass to every model, are not used.
        """
        if compute is not None:
            return compute(self)
        assert input_ids is not None, "given unless `compute` is"
        assert pixel_values is not None, "given unless `compute` is"
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        tokens = self.encode_video(pixel_values).tokens
        assert tokens is not None
        return self.match(input_ids, mask, tokens)


def check_encode_token(config: Any) -> None:
    """Refuse a token [ENC] outside the vocabulary."""
    if not 0 <= config.encode_token_id < config.text_config.vocab_size:
        raise ConfigError(
            f"`encode_token_id` must be a token of the vocabulary ({config.text_config.vocab_size}), but is "
            f"{config.encode_token_id}. Reserve one row of the embeddings for it."
        )


def frame_tokens(model: Any, pixel_values: Tensor) -> Tensor:
    """Tokens of every frame of images or videos, as any BLIP makes them, shape `(batch, frames, tokens, width)`.

    Args:
        model: The BLIP.
        pixel_values: Shape `(batch, frames, 3, height, width)`, or without `frames`.

    Raises:
        ConfigError: If the pixels do not have the config's size, which must be a multiple of the patch.
    """
    frames = pixel_values[:, None] if pixel_values.dim() == 4 else pixel_values
    vision = model.config.vision_config
    side, patch = vision.image_size, vision.patch_size
    if tuple(frames.shape[-2:]) != (side, side) or side % patch:
        raise ConfigError(
            f"`pixel_values` must be of {side} by {side} pixels, a multiple of the patch ({patch}), but are of "
            f"{frames.shape[-2]} by {frames.shape[-1]}. Resize the images, or load the model with another "
            "`image_size`, for which the positions are resized."
        )
    hidden: Tensor = model.vision_model(pixel_values=frames.flatten(0, 1)).last_hidden_state
    return hidden.unflatten(0, frames.shape[:2])


def grounded_states(
    model: Any, input_ids: Tensor, attention_mask: Tensor, tokens: Tensor, frame_weights: Tensor | None
) -> Tensor:
    """States of texts that look at images, with [ENC] in their first place, shape `(batch, length, width)`.

    The arguments are those of `BlipRetrieval.match`, for any BLIP with the field `encode_token_id`.
    """
    ids = input_ids.clone()
    ids[:, 0] = model.config.encode_token_id
    with _frame_signal(model, frame_weights):
        states: Tensor = model.text_encoder(
            input_ids=ids,
            attention_mask=attention_mask,
            encoder_hidden_states=tokens,
            encoder_attention_mask=all_seen(tokens),
        ).last_hidden_state
    return states


def all_seen(tokens: Tensor) -> Tensor:
    """A mask that hides none of the tokens."""
    return tokens.new_ones(tokens.shape[:2], dtype=torch.long)


def _frame_signal(model: Any, frame_weights: Tensor | None) -> AbstractContextManager[None]:
    """Hand frame weights, if there are any, to the unit `frame_attention` of a model, which must have it."""
    if frame_weights is None:
        return nullcontext()
    plan = getattr(getattr(model, "weft", None), "plan", None)
    if plan is None or not any(config.method == "frame_attention" for config in plan.configs):
        raise ConfigError(
            "`frame_weights` must be given only to a model with the unit 'frame_attention', but this one has none. Add "
            "`{method: frame_attention}` to its methods."
        )
    return model.signal(frame_weights=frame_weights)


AutoConfig.register(BlipRetrievalConfig.model_type, BlipRetrievalConfig)
AutoModel.register(BlipRetrievalConfig, BlipRetrieval)
