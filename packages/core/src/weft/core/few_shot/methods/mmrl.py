"""MMRL: tokens of a space that both towers share, mapped into their upper layers, with a feature of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.image_head import Adaptable, ImageHead, batches_of
from weft.core.few_shot.images import Readable
from weft.core.few_shot.layer_tokens import LayerTokens
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head

_SPREAD = 0.02


@register_head
class MMRLConfig(TrainingOptions, HeadConfig):
    """MMRL, for few-shot classification.

    Args:
        tokens: Tokens of the shared space.
        token_size: Their width.
        upper: Number of layers in each tower that read them, from the last down.
        share: Share of the class token's feature in loss and scores; the tokens' feature has the rest.
        penalty: Factor of the distance of image and class features from those of the plain encoder.
    """

    method: Literal["mmrl"] = "mmrl"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    epochs: int = Field(default=50, ge=0)
    batch_size: int = Field(default=32, gt=0)
    warmup_epochs: int = Field(default=1, ge=0)
    select_epoch: bool = False
    tokens: int = Field(default=5, ge=1)
    token_size: int = Field(default=512, ge=1)
    upper: int = Field(default=7, ge=1)
    share: float = Field(default=0.7, ge=0, le=1)
    penalty: float = Field(default=0.5, ge=0)

    def trained_within(self, model: nn.Module) -> int:
        """The tokens, their maps into the layers, and their projection into the common space."""
        places = LayerTokens(model, self.upper)
        widths = sum(len(layers) * places.widths[tower] for tower, layers in places.layers.items())
        maps = widths * (self.token_size + 1)
        return self.tokens * self.token_size + maps + places.size * places.widths["vision"]


class MMRL(ImageHead):
    """`z = scale · (a · f' + (1 - a) · r) g'`, with `f'`, `g'` of towers that read tokens, and `r` of the tokens.

    Each of the upper layers reads `R W_l + b_l` behind its first token, with `R` shared by all layers of both towers;
    its outputs for them go no further. `r` is the mean of the last layer's outputs for them, through a projection of
    its own. The loss is `a CE(f' g') + (1 - a) CE(r g') + λ (1 - cos(f', f)) + λ (1 - cos(g', g))`, with `f` and `g` of
    the plain encoder. The head does not start as zero-shot. Other classes are scored by `f' g'` alone.

    Source: Guo and Gu, CVPR 2025 (MMRL), and the code (github.com/yunncheng/MMRL), which gives five tokens of width
    512, layers 6 to 12 of 12, a share of 0.7, AdamW at 0.001 and 50 epochs in batches of 32. It sets λ for each data
    set, from 0.01 to 7; 0.5 is that of its few-shot configuration. It leaves the weight decay to its training library;
    we take 0.0005, which is not verified. Difference: all given templates are read, there one.
    """

    config_class = MMRLConfig
    space: nn.Parameter
    maps: nn.ModuleDict
    projection: nn.Parameter
    named: Tensor
    is_of_others = False

    def build(self, num_samples: int) -> None:
        """Draw tokens, maps and projection."""
        super().build(num_samples)
        places = self._places()
        counts = {tower: len(layers) for tower, layers in places.layers.items()}
        self._hold(counts, places.widths)
        nn.init.normal_(self.space, std=_SPREAD)
        nn.init.normal_(self.projection, std=places.widths["vision"] ** -0.5)

    def build_like(self, num_samples: int, tensors: Mapping[str, Tensor]) -> None:
        """Make room for the tensors of a file, whose sizes only the encoder knows."""
        super().build(num_samples)
        biases = {name: len(value) for name, value in tensors.items() if value.dim() == 1}
        found = {
            tower: [width for name, width in biases.items() if name.startswith(f"maps.{tower}.")]
            for tower in ("text", "vision")
        }
        self._hold(
            {tower: len(widths) for tower, widths in found.items()},
            {tower: widths[0] if widths else 0 for tower, widths in found.items()},
        )

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train the tokens, and keep the class features under them."""
        trained = [*self.parameters()]
        train_head(self, trained, samples, self.config, validation=validation, seed=seed, loss=self._loss)
        self.read_classes(self.required())

    def class_features(self) -> Tensor:
        """Unit features of the class names through the text tower with tokens."""
        # While the tokens are trained the features change; afterwards they are kept.
        return self._read_classes() if self.space.requires_grad else self.named

    def image_features(self, adaptable: Adaptable, pixel_values: Tensor) -> Tensor:
        """Unit features of the class token."""
        return self._both(adaptable, pixel_values)[0]

    def scores(self, features: Readable) -> Tensor:
        """The cosine of class names with the mixture of both features."""
        if self.is_of_others:
            return super().scores(features)
        adaptable, names, share = self.required(), self.class_features(), self.config.share
        rows = []
        for batch in batches_of(features):
            first, second = self._both(adaptable, batch)
            rows.append((share * first + (1 - share) * second) @ names.T)
        return self.config.logit_scale * torch.cat(rows)

    def for_classes(self, class_weights: Tensor, adaptable: Adaptable) -> Self:
        """As `ImageHead.for_classes`; other classes are scored without the tokens' feature."""
        other = super().for_classes(class_weights, adaptable)
        other.is_of_others = True
        return other

    def read_classes(self, adaptable: Adaptable) -> None:
        """Keep the features of the class names."""
        with torch.no_grad():
            self.named.copy_(self._read_classes())

    def _loss(self, pixel_values: Tensor, labels: Tensor) -> Tensor:
        adaptable, share, scale = self.required(), self.config.share, self.config.logit_scale
        names = self.class_features()
        first, second = self._both(adaptable, pixel_values)
        with torch.no_grad():
            plain = adaptable.image_features(pixel_values).to(first)
        moved = 2 - (first * plain).sum(-1).mean() - (names * self.class_weights).sum(-1).mean()
        wrong = functional.cross_entropy(scale * first @ names.T, labels)
        own = functional.cross_entropy(scale * second @ names.T, labels)
        return share * wrong + (1 - share) * own + self.config.penalty * moved

    def _both(self, adaptable: Adaptable, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features of the class token and of the tokens, shape (images, width)."""
        places = self._places()
        with places.inserted("vision", self._tokens("vision")) as made:
            first = adaptable.image_features(pixel_values).to(self.class_weights)
        second = places.normed(made[0]).mean(1).to(self.class_weights) @ self.projection.T
        return first, functional.normalize(second, dim=-1)

    def _read_classes(self) -> Tensor:
        with self._places().inserted("text", self._tokens("text")):
            return self.required().class_features().to(self.class_weights)

    def _tokens(self, tower: str) -> list[Tensor]:
        return [one(self.space) for one in self.maps[tower].children()]

    def _places(self) -> LayerTokens:
        return self.required().layer_tokens(self.config.upper)

    def _hold(self, counts: Mapping[str, int], widths: Mapping[str, int]) -> None:
        size = self.config.token_size
        self.space = nn.Parameter(torch.zeros(self.config.tokens, size))
        self.maps = nn.ModuleDict(
            {
                tower: nn.ModuleList(nn.Linear(size, widths[tower]) for _ in range(counts[tower]))
                for tower in ("text", "vision")
            }
        )
        self.projection = nn.Parameter(torch.zeros(self.width, widths["vision"]))
        self.register_buffer("named", self.class_weights.detach().clone())
        self.requires_grad_(False)
