"""Multi-Modal Adapter: attention over an image and the class names, whose output is mixed into the features of both."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.images import Readable
from weft.core.few_shot.training import TrainedHead, TrainingOptions

# Features of class names under all images together that live at a time.
_PAIRS = 2**15


@register_head
class MultiModalAdapterConfig(TrainingOptions, HeadConfig):
    """The Multi-Modal Adapter of Seputis et al., which is not the method `mma`.

    Args:
        bottleneck_size: Width of the layers before and after the attention.
        hidden_size: Width of the attention.
        num_heads: Heads of the attention, which divide its width.
        ratio: Share of the attention's output in the new features.
        links: With `all`, names attend to names and image alike; with `cross`, names attend only to the image, and the
            image only to names.
        cross_bias: Added to the attention scores between an image and a name.
    """

    method: Literal["multi_modal_adapter"] = "multi_modal_adapter"
    optimizer: Literal["adamw", "adam", "sgd"] = "adam"
    learning_rate: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    epochs: int = Field(default=100, ge=0)
    batch_size: int = Field(default=64, gt=0)
    bottleneck_size: int = Field(default=32, ge=1)
    hidden_size: int = Field(default=128, ge=1)
    num_heads: int = Field(default=4, ge=1)
    ratio: float = Field(default=0.2, ge=0, le=1)
    links: Literal["all", "cross"] = "all"
    cross_bias: float = 1.0

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> MultiModalAdapterConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide `hidden_size` ({self.hidden_size}), but is {self.num_heads}. Choose another."
            )
        return self

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """Two layers before and two after the attention, and its four maps, all with bias."""
        small, hidden = self.bottleneck_size, self.hidden_size
        into = small * (width + 1) + hidden * (small + 1)
        out = small * (hidden + 1) + width * (small + 1)
        return into + 4 * hidden * (hidden + 1) + out


class MultiModalAdapter(TrainedHead):
    """`z_c = scale · f' w'_c`, with `f' = norm(r · norm(a_f) + (1 - r) f)` and `w'_c` alike from `a_c`.

    `(a_1 … a_C, a_f) = up(attention(down(w_1 … w_C, f)))`, so that each image changes the features of all class names.
    It starts near zero-shot, not as zero-shot. Attention among names is the same for all images and computed once.

    Source: Seputis et al. 2024 (arXiv 2409.02958), and the first author's code (github.com/dqmis/clip-mma), which gives
    widths of 32 and 128, four heads, a ratio of 0.2, Adam at 0.01 with a decay of 0.0001, and batches of 64. The code
    calls its attention masked, but adds the mask to the scores (one between image and name, else zero), so that nothing
    is masked: that is `links: all`. `cross` masks, as copies of the code do. Which of them gave the paper's figures is
    not verified. Difference: the code stops after ten epochs without gain on its validation set; here the best of all
    epochs is kept.
    """

    config_class = MultiModalAdapterConfig

    def build(self, num_samples: int) -> None:
        """Make the layers."""
        small, hidden = self.config.bottleneck_size, self.config.hidden_size
        self.down = nn.Sequential(nn.Linear(self.width, small), nn.Linear(small, hidden))
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.up = nn.Sequential(nn.Linear(hidden, small), nn.GELU(), nn.Linear(small, self.width))
        # As torch's own attention starts.
        nn.init.xavier_uniform_(self.query_key_value.weight)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.output.bias)
        self.requires_grad_(False)

    def scores(self, features: Tensor) -> Tensor:
        """The cosine of both adapted features."""
        return self._scores(features, self.class_weights)

    def transfer_logits(self, features: Readable, class_weights: Tensor) -> Tensor:
        """Scores of classes that the head was not fitted on, whose names take part in the attention."""
        found = self._scores(self._checked(features), self._checked(class_weights, "class_weights"))
        return found.detach()

    def _scores(self, features: Tensor, names: Tensor) -> Tensor:
        rows = []
        for block in features.split(max(1, _PAIRS // len(names))):
            images, texts = self._attended(block, names)
            rows.append(torch.einsum("rd,rcd->rc", self._blended(images, block), self._blended(texts, names)))
        return self.config.logit_scale * torch.cat(rows)

    def _blended(self, adapted: Tensor, features: Tensor) -> Tensor:
        ratio = self.config.ratio
        moved = functional.normalize(self.up(self.output(adapted)), dim=-1)
        return functional.normalize(ratio * moved + (1 - ratio) * features, dim=-1)

    def _attended(self, images: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
        """What images and names attend to, shapes (rows, hidden) and (rows, classes, hidden)."""
        # R rows, C classes, H heads, D their width.
        query_RHD, key_RHD, value_RHD = self._maps(images)
        query_CHD, key_CHD, value_CHD = self._maps(names)
        scale, bias = query_RHD.shape[-1] ** -0.5, self.config.cross_bias
        to_names_RHC = scale * torch.einsum("rhd,chd->rhc", query_RHD, key_CHD) + bias
        to_image_RHC = scale * torch.einsum("chd,rhd->rhc", query_CHD, key_RHD) + bias
        if self.config.links == "cross":
            of_image = torch.einsum("rhc,chd->rhd", to_names_RHC.softmax(-1), value_CHD)
            return of_image.flatten(1), value_RHD.flatten(1)[:, None].expand(-1, len(names), -1)
        to_itself_RH1 = scale * (query_RHD * key_RHD).sum(-1, keepdim=True)
        share = torch.cat([to_names_RHC, to_itself_RH1], dim=-1).softmax(-1)
        of_image = torch.einsum("rhc,chd->rhd", share[..., :-1], value_CHD) + share[..., -1:] * value_RHD
        among_HCC = scale * torch.einsum("chd,ehd->hce", query_CHD, key_CHD)
        weight_HC = among_HCC.logsumexp(-1)
        plain_CHD = torch.einsum("hce,ehd->chd", among_HCC.softmax(-1), value_CHD)
        image_share = torch.sigmoid(to_image_RHC - weight_HC).transpose(1, 2).unsqueeze(-1)  # RCH1
        of_names = (1 - image_share) * plain_CHD + image_share * value_RHD[:, None]
        return of_image.flatten(1), of_names.flatten(2)

    def _maps(self, features: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each of shape (rows, heads, width of a head)."""
        found = self.query_key_value(self.down(features))
        return found.unflatten(-1, (3, self.config.num_heads, -1)).unbind(1)
