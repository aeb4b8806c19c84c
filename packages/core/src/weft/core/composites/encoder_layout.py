"""Which rows of a text encoder's input are prompt, text and visual tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration, PreTrainedModel, T5ForConditionalGeneration

from weft.core.errors import BackboneError


class EncoderLayout:
    """Keeps visual tokens out of a text encoder's positions, as VL-BART and VL-T5 do.

    The rows are `[prompt][text][visual]`. In BART only text rows get learned positions (counted from the first
    text row), and visual rows skip the embedding norm. In T5 the relative bias is zero for every pair with a
    visual token. Nothing of the backbone is copied: three modules' outputs are corrected.

    The layout of the latest forward pass stays in place until the next one, because gradient checkpointing
    computes the T5 bias again during the backward pass.

    Source: modeling_bart.py and modeling_t5.py of VL-T5, through the VL-Adapter paper's section 3.
    """

    def __init__(self, language_model: PreTrainedModel) -> None:
        self.prompt = 0
        self.text: int | None = None
        self._rows = 0
        encoder = language_model.get_encoder()
        if isinstance(language_model, BartForConditionalGeneration):
            encoder.embed_positions.register_forward_pre_hook(self._ask_for_text)
            encoder.embed_positions.register_forward_hook(self._position)
            encoder.layernorm_embedding.register_forward_hook(self._norm)
        elif isinstance(language_model, T5ForConditionalGeneration):
            bias = encoder.block[0].layer[0].SelfAttention.relative_attention_bias
            bias.register_forward_hook(self._relative_bias)
        else:
            raise BackboneError(
                "`language_model` must be BartForConditionalGeneration or T5ForConditionalGeneration, but is "
                f"{type(language_model).__name__}. Other encoder-decoders need their own rule for visual rows."
            )

    def set(self, *, prompt: int, text: int) -> None:
        """State the layout of the coming pass, in rows; everything after the text is visual."""
        self.prompt, self.text = prompt, text

    def _ask_for_text(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Look the positions of text up alone: the table need not be as long as text and visual tokens together."""
        if self.text is None:
            return args
        self._rows = args[0].shape[1]
        return (args[0][:, : self.text], *args[1:])

    def _position(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if self.text is None:
            return output
        behind = self._rows - self.prompt - self.text
        return nn.functional.pad(output, (0, 0, self.prompt, behind))

    def _norm(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.text is None:
            return output
        end = self.prompt + self.text
        return torch.cat([output[..., :end, :], args[0][..., end:, :]], dim=-2)

    def _relative_bias(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if self.text is None:
            return output
        is_text = torch.arange(output.shape[0], device=output.device) < self.prompt + self.text
        return output * (is_text[:, None] & is_text[None, :])[..., None].to(output.dtype)
