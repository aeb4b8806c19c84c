"""BLIP for captions as it was trained: a prompt that every caption begins with, and a loss on what follows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, BlipConfig, BlipForConditionalGeneration

from weft.core.composites.blip_retrieval import BlipWriting, all_seen, frame_tokens
from weft.core.errors import ConfigError


class BlipCaptioningConfig(BlipConfig):
    """Configuration of `BlipCaptioning`: that of BLIP.

    `label_smoothing` of `text_config` is 0.1 in BLIP's own training, and 0 by default.
    """

    model_type = "weft_blip_captioning"


class BlipCaptioning(BlipWriting, BlipForConditionalGeneration):
    """`BlipForConditionalGeneration` with the passes of BLIP's own fine-tuning and inference.

    Source: BLIP (Li et al. 2022), section 5.2; the frames of videos as in UniAdapter (Lu et al., ICLR 2024).
    """

    config_class = BlipCaptioningConfig

    def encode_frames(self, pixel_values: Tensor) -> Tensor:
        """What captions look at: the tokens of all frames, shape `(batch, frames * tokens, width)`.

        Args:
            pixel_values: Shape `(batch, frames, 3, height, width)`, or without `frames`.
        """
        return frame_tokens(self, pixel_values).flatten(1, 2)

    def caption_losses(
        self,
        prompts: Tensor,
        prompt_mask: Tensor,
        pixel_values: Tensor,
        captions: Tensor,
        caption_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """How unlikely each caption is after its prompt: smoothed cross-entropy, summed over the caption's tokens.

        Args:
            prompts: Shape `(batch, prompt)`, with a special token at both ends; the same length in every row.
            prompt_mask: Shape `(batch, prompt)`.
            pixel_values: Shape `(batch, frames, 3, height, width)`, or without `frames`.
            captions: Shape `(batch, length)`, with a special token at both ends; padding is not scored.
            caption_mask: Shape `(batch, length)`.

        Returns:
            Sums and numbers of tokens, both of shape `(batch,)`.

        Raises:
            ConfigError: If prompts differ in length.
        """
        start = self._start(prompts, prompt_mask)
        tokens = self.encode_frames(pixel_values)
        ids = torch.cat([start, captions[:, 1:]], dim=1)
        mask = torch.cat([torch.ones_like(start), caption_mask[:, 1:]], dim=1)
        logits = self.decode(ids, mask, tokens, all_seen(tokens))[:, start.shape[1] - 1 : -1]
        return self.summed_losses(logits, captions, caption_mask), caption_mask[:, 1:].sum(dim=1)

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Write captions: their tokens, after the prompt, shape `(batch, length)`.

        Args:
            input_ids: Prompts; see `caption_losses`.
            pixel_values: See `caption_losses`.
            attention_mask: Ones by default.
            **kwargs: Options of generation.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        start, tokens = self._start(input_ids, mask), self.encode_frames(pixel_values)
        return self.write(start, tokens, all_seen(tokens), **kwargs)[:, start.shape[1] :]

    def _start(self, prompts: Tensor, mask: Tensor) -> Tensor:
        """[DEC] and the prompt without its last token."""
        if not bool((mask == 1).all()):
            raise ConfigError(
                "`prompts` of one batch must be of one length, because a caption continues where its prompt ends, but "
                "some are padded. Give all captions the same prompt."
            )
        start = prompts[:, :-1].clone()
        start[:, 0] = self.config.text_config.bos_token_id
        return start


AutoConfig.register(BlipCaptioningConfig.model_type, BlipCaptioningConfig)
AutoModel.register(BlipCaptioningConfig, BlipCaptioning)
