"""CoCoOp: CoOp with a small network through which each image shifts the context."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from weft.core.few_shot.head_config import register_head
from weft.core.few_shot.methods.coop import CoOp, PromptHeadConfig

_REDUCTION = 16
# Texts that are encoded at a time, unless one image alone has more classes.
_PROMPTS = 512


@register_head
class CoCoOpConfig(PromptHeadConfig):
    """CoCoOp: four tokens, and 10 epochs of single images; the paper starts from `a photo of a`."""

    method: Literal["cocoop"] = "cocoop"
    context_tokens: int = Field(default=4, gt=0)
    epochs: int = Field(default=10, ge=0)
    batch_size: int = Field(default=1, gt=0)
    select_epoch: bool = False

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """The context, and a network of two layers with bias."""
        hidden = max(1, width // _REDUCTION)
        network = hidden * (width + 1) + self.context_width * (hidden + 1)
        return self.context_tokens * self.context_width + network


class CoCoOp(CoOp):
    """`z_i = scale · f_i g([v + m(f_i), class name])`: all class names are read anew for each image.

    Logits need the text encoder too; after `load`, give it again with `use_prompts`.

    Source: Zhou et al. 2022 (CoCoOp), section 3.2.
    """

    config_class = CoCoOpConfig

    def build(self, num_samples: int) -> None:
        """Make the context and the network."""
        super().build(num_samples)
        hidden = max(1, self.width // _REDUCTION)
        self.meta = nn.Sequential(
            nn.Linear(self.width, hidden), nn.ReLU(), nn.Linear(hidden, self.config.context_width)
        ).requires_grad_(False)

    def scores(self, features: Tensor) -> Tensor:
        """Logits of each image under its own prompts."""
        prompts = self._required_prompts()
        together = max(1, _PROMPTS // self.num_classes)
        rows = []
        for block in features.split(together):
            names = prompts(self.context + self.meta(block)[:, None]).to(block)
            rows.append(torch.einsum("rd,rcd->rc", block, names))
        return self.config.logit_scale * torch.cat(rows)
