"""BLIP for questions as it was trained: the token that starts a question, and losses summed over an answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, BlipConfig, BlipForQuestionAnswering
from transformers.models.blip.modeling_blip_text import BlipTextAttention

from weft.core.composites.blip_retrieval import BlipWriting, check_encode_token, frame_tokens, grounded_states


class BlipAnsweringConfig(BlipConfig):
    """Configuration of `BlipAnswering`.

    Beside the fields of `BlipConfig` it has `encode_token_id`, the token [ENC] that takes the first place of a question
    (30523 in BLIP). `label_smoothing` of `text_config` is 0.1 in BLIP's own training, and 0 by default.
    """

    model_type = "weft_blip_answering"
    encode_token_id: int = 30523


class MaskedCrossAttention(BlipTextAttention):
    """Cross-attention that applies its mask.

    The parent receives the mask of what it attends to and hands on none, so that padding is read like words.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """As the parent's, with `attention_mask` that of `encoder_hidden_states`."""
        context, weights = self.self(
            hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
        )
        return self.output(context, hidden_states), weights


class BlipAnswering(BlipWriting, BlipForQuestionAnswering):
    """`BlipForQuestionAnswering` with the passes of BLIP's own fine-tuning and inference.

    Args:
        config: The configuration.

    Source: BLIP (Li et al. 2022), section 5.3; the frames of videos as in UniAdapter (Lu et al., ICLR 2024).
    """

    config_class = BlipAnsweringConfig

    def __init__(self, config: BlipAnsweringConfig) -> None:
        super().__init__(config)
        check_encode_token(config)
        for layer in self.text_decoder.bert.encoder.layer:
            layer.crossattention.__class__ = MaskedCrossAttention

    def encode_question(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor,
        frame_weights: Tensor | None = None,
    ) -> Tensor:
        """States of questions that look at their images, shape `(batch, length, width)`.

        Args:
            input_ids: Shape `(batch, length)`; the first token is overwritten with [ENC].
            attention_mask: Shape `(batch, length)`.
            pixel_values: Shape `(batch, frames, 3, height, width)`, or without `frames`.
            frame_weights: See `BlipRetrieval.match`.
        """
        tokens = frame_tokens(self, pixel_values).flatten(1, 2)
        return grounded_states(self, input_ids, attention_mask, tokens, frame_weights)

    def answer_losses(
        self, answers: Tensor, answer_mask: Tensor, states: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """How unlikely each answer is: smoothed cross-entropy, summed over its tokens, shape `(answers,)`.

        Args:
            answers: Shape `(answers, length)`; the first token is overwritten with [DEC], and padding is not scored.
            answer_mask: Shape `(answers, length)`.
            states: `encode_question(...)`, repeated to one row per answer.
            attention_mask: That of the questions, repeated in the same way.
        """
        logits = self.answer_logits(answers, answer_mask, states, attention_mask)[:, :-1]
        return self.summed_losses(logits, answers, answer_mask)

    def answer_logits(
        self, answers: Tensor, answer_mask: Tensor, states: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Logits after every token of an answer, shape `(answers, length, vocabulary)`; arguments as above."""
        ids = answers.clone()
        ids[:, 0] = self.decoder_start_token_id
        return self.decode(ids, answer_mask, states, attention_mask)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        frame_weights: Tensor | None = None,
        reads_padding: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Write answers: their tokens, after [DEC], shape `(batch, length)`.

        Args:
            input_ids: See `encode_question`.
            pixel_values: See `encode_question`.
            attention_mask: Ones by default.
            frame_weights: See `encode_question`.
            reads_padding: Let the decoder see the padding of a question too, as BLIP's code for generation does. An
                answer then depends on the longest question of its batch.
            **kwargs: Options of generation.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.encode_question(input_ids, mask, pixel_values, frame_weights)
        start = input_ids.new_full((len(input_ids), 1), self.decoder_start_token_id)
        return self.write(start, states, torch.ones_like(mask) if reads_padding else mask, **kwargs)


AutoConfig.register(BlipAnsweringConfig.model_type, BlipAnsweringConfig)
AutoModel.register(BlipAnsweringConfig, BlipAnswering)
