"""XMAdapter: an image cache and a text cache, mixed by a ratio, trained with more weight on hard samples.

XMAdapter's code is not public. We follow its public sources as far as they go: image keys are the cached image
features; text keys are prompt-learned class features through a small network (MetaNet), gathered by label; the query
goes through another (Img2TxtNet); an adaptive ratio mixes the two affinities; samples on which they differ weigh more.
All that they leave open is a field of `XMAdapterConfig`, and a reconstruction.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot.explain import Votes
from weft.core.few_shot.grid import Grid
from weft.core.few_shot.head_config import Axes, HeadConfig, register_head
from weft.core.few_shot.methods.tip_adapter import TipAdapter
from weft.core.few_shot.methods.tip_adapter_f import TrainedCacheConfig
from weft.core.few_shot.samples import Samples, checked_features
from weft.core.few_shot.text_keys import ClassTextKeys, MixedTextKeys, ResidualTextKeys, TextKeys
from weft.core.few_shot.training import train_head
from weft.kernels import affinity_difference

_SMALL = 1e-12


@register_head
class XMAdapterConfig(TrainedCacheConfig):
    """XMAdapter, trained as Tip-Adapter-F, which it extends.

    Args:
        text_keys: `class`, a key per class in a space of `text_width` (closest to the sources); `residual`, a key per
            sample in the encoder's space, which starts as the class feature; `mixed`, `(1 - text_share) W + text_share
            F` without networks; `off`, no text cache.
        network: Networks of `class` keys: `linear`, or `mlp` with two layers.
        text_width: Width of `class` keys; by default a quarter of the encoder's.
        text_share: Share of the image feature in `mixed` keys.
        text_beta: Sharpness of the text affinity; by default that of the image affinity.
        ratio_mode: The share of the image cache: `dynamic`, for each query by how sure either cache is; `learned`, one
            trained number; `fixed`, one number that the search chooses.
        ratio: The share with `fixed`, before a search.
        ratio_steps: Number of shares from 0 to 1 that are searched with `fixed`.
        confidence_scale: Factor of the mean affinities before the softmax that `dynamic` takes the entropy of.
        difference: How far the affinities of a sample differ: `class`, one minus the cosine of the two class sums;
            `mean`, the mean absolute difference over the keys.
        hard_weight: Strength of the weight on hard samples; 0 is plain cross-entropy.
        weighting: `linear`, `1 + hard_weight · D / mean(D)`; `focal`, `(1 + D)^hard_weight`.
        train_keys: Whether the image keys are trained too.
    """

    method: Literal["xmadapter"] = "xmadapter"
    text_keys: Literal["class", "residual", "mixed", "off"] = "class"
    network: Literal["linear", "mlp"] = "linear"
    text_width: int | None = Field(default=None, gt=0)
    text_share: float = Field(default=0.5, ge=0, le=1)
    text_beta: float | None = Field(default=None, gt=0)
    ratio_mode: Literal["dynamic", "learned", "fixed"] = "dynamic"
    ratio: float = Field(default=0.5, ge=0, le=1)
    ratio_steps: int = Field(default=21, ge=1)
    confidence_scale: float = Field(default=10.0, gt=0)
    difference: Literal["class", "mean"] = "class"
    hard_weight: float = Field(default=1.0, ge=0)
    weighting: Literal["linear", "focal"] = "linear"
    train_keys: bool = True

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """Keys, networks and the ratio, as far as they are trained."""
        networks = make_text_keys(self, width, device=torch.device("meta"))
        trained = sum(parameter.numel() for parameter in networks.parameters())
        trained += num_samples * width if self.train_keys else 0
        return trained + (self.ratio_mode == "learned" and self.text_keys != "off")


class XMAdapter(TipAdapter):
    """Zero-shot logits plus the votes of an image cache and of a text cache.

    `z = scale · f W + alpha · Σ_{j in class} (g A_image[j] + (1 - g) A_text[j])`, with
    `A_image[j] = exp(-beta (1 - f·F_j))` and `A_text[j] = exp(-text_beta (1 - q(f)·T_j))`. The loss of a sample is
    its cross-entropy times a weight that grows with the difference of its two affinities.

    Source: Yang et al. 2024 (XMAdapter, arXiv 2404.12588), as far as public; the rest is a reconstruction, see
    `XMAdapterConfig`. Without a text cache, or with `ratio=1` and `hard_weight=0`, it is Tip-Adapter-F.
    """

    config_class = XMAdapterConfig
    prompt_weights: Tensor
    theta: nn.Parameter

    def __init__(self, class_weights: Tensor, config: HeadConfig | None = None) -> None:
        super().__init__(class_weights, config)
        self.register_buffer("prompt_weights", self.class_weights.clone())

    def use_prompts(self, prompt_weights: Tensor) -> None:
        """Take prompt-learned class features (classes, width), such as CoOp's, for the text cache, before `fit`.

        Raises:
            FewShotError: They are no unit vectors, or not one per class.
        """
        checked = checked_features(prompt_weights, width=self.width, name="prompt_weights")
        if len(checked) != self.num_classes:
            raise FewShotError(
                f"`prompt_weights` must have one row per class ({self.num_classes}), but have {len(checked)}. "
                "Learn prompts for the same classes."
            )
        self.prompt_weights = checked.detach().clone().to(self.class_weights)

    def build(self, num_samples: int) -> None:
        """Make an empty cache, the networks and the ratio."""
        super().build(num_samples)
        self.text: TextKeys = make_text_keys(self.config, self.width)
        self.theta = nn.Parameter(torch.zeros(()), requires_grad=False)
        if self.config.ratio_mode == "fixed":
            self.selected["ratio"] = self.config.ratio

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Cache the mean features, and train all that the configuration says."""
        super().fit_samples(samples, validation, seed)
        self.search_start(validation)
        trained = [*self.text.parameters()]
        if self.config.train_keys:
            trained.append(self.cache.keys)
        if self.config.ratio_mode == "learned" and self.config.text_keys != "off":
            trained.append(self.theta)
        if trained:
            train_head(self, trained, samples, self.config, validation=validation, seed=seed, loss=self._loss)

    def scores(self, features: Tensor) -> Tensor:
        """Logits of the class names and of both caches."""
        return self._mixed(features, self.selected["beta"], scored=True)

    def _mixed(
        self,
        features: Tensor,
        beta: float | Tensor,
        *,
        ratios: Tensor | None = None,
        scored: bool = False,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """Mixed class sums of both caches, or (`scored`) the logits made of them, by default at the share in use.

        With a text cache, `seen` gets the class sums of images, those of texts, and the share.
        """

        def ratio(image: Tensor, text: Tensor) -> Tensor:
            share = self._ratio(image, text) if ratios is None else ratios
            if seen is not None:
                seen.extend((image, text, share))
            return share

        options: dict[str, Any] = {"key_weights": self._key_weights()}
        if self.config.text_keys != "off":
            queries, keys = self._text_sides(features)
            # All samples of a class may share one key: it counts as often as the class has samples.
            kind = "text_class_keys" if self.config.text_keys == "class" else "text_keys"
            options |= {
                "text_queries": queries,
                kind: keys,
                "text_beta": self.config.text_beta,
                "ratio": ratio,
            }
        if scored:
            options |= {"init": self.zero_shot(features), "alpha": self.selected["alpha"]}
        return self.cache.logits(features, beta, **options)

    def _text_sides(self, features: Tensor) -> tuple[Tensor, Tensor]:
        labels = self.cache.labels.to(torch.int64)
        return self.text.queries(features), self.text.keys(self.prompt_weights, self.cache.keys, labels)

    def _text_keys_of_samples(self, keys: Tensor) -> Tensor:
        return keys[self.cache.labels.to(torch.int64)] if self.config.text_keys == "class" else keys

    def _ratio(self, image: Tensor, text: Tensor) -> Tensor:
        """Share of the image cache, broadcast against (…, rows, classes)."""
        if self.config.ratio_mode == "fixed":
            return torch.full((), self.selected["ratio"], dtype=image.dtype, device=image.device)
        if self.config.ratio_mode == "learned":
            return self.theta.sigmoid()
        sure_image, sure_text = self._confidence(image), self._confidence(text)
        return (sure_image + _SMALL) / (sure_image + sure_text + 2 * _SMALL)

    def _confidence(self, sums: Tensor) -> Tensor:
        """One minus the normalised entropy over the classes with keys, without a gradient, (…, rows, 1)."""
        counts = self.cache.counts()
        held = counts > 0
        mean = sums.detach()[..., held] / counts[held].to(sums.dtype)
        log = (self.config.confidence_scale * mean).log_softmax(-1)
        entropy = -(log.exp() * log).sum(-1, keepdim=True)
        return 1 - entropy / math.log(max(2, int(held.sum())))

    def _loss(self, features: Tensor, labels: Tensor) -> Tensor:
        seen: list[Tensor] = []
        logits = self._mixed(features, self.selected["beta"], scored=True, seen=seen)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        if not seen or self.config.hard_weight == 0:
            return losses.mean()
        return (self._intensity(features, *seen[:2]) * losses).mean()

    def _intensity(self, features: Tensor, image: Tensor, text: Tensor) -> Tensor:
        """Weight of every sample of a batch, with mean one and without a gradient, shape (batch,)."""
        with torch.no_grad():
            difference = self._difference(features, image, text)
            if self.config.weighting == "focal":
                weights = (1 + difference) ** self.config.hard_weight
            else:
                weights = 1 + self.config.hard_weight * difference / difference.mean().clamp(min=_SMALL)
            return weights / weights.mean()

    def _difference(self, features: Tensor, image: Tensor, text: Tensor) -> Tensor:
        if self.config.difference == "class":
            return 1 - functional.cosine_similarity(image, text, dim=-1)
        queries, keys = self._text_sides(features)
        return affinity_difference(
            features,
            self.cache.keys,
            queries,
            self._text_keys_of_samples(keys),
            beta=self.selected["beta"],
            text_beta=self.config.text_beta,
        ).to(image.dtype)

    def grid(self, features: Tensor, axes: Axes) -> Grid:
        """Values of beta and alpha, and of a fixed ratio."""
        betas, ratios = axes["beta"], self._searched_ratios()
        sharpness = torch.tensor(betas, dtype=features.dtype, device=features.device)
        shares = [{"ratio": ratio} for ratio in ratios] or [{}]

        def sums_of(rows: slice) -> Tensor:
            if not ratios:
                return self._mixed(features[rows], sharpness)
            # One more axis in front of the betas.
            each = torch.tensor(ratios, dtype=features.dtype, device=features.device).view(-1, 1, 1, 1)
            return self._mixed(features[rows], sharpness, ratios=each).flatten(0, 1)

        candidates = [{"beta": beta, **share} for share in shares for beta in betas]
        return Grid(candidates, sums_of, axes["alpha"])

    def _searched_ratios(self) -> list[float]:
        steps = self.config.ratio_steps
        if self.config.ratio_mode != "fixed" or self.config.text_keys == "off":
            return []
        return [self.config.ratio] if steps == 1 else [index / (steps - 1) for index in range(steps)]

    def votes(self, features: Tensor) -> Votes:
        """What each cached sample adds to the logit of its class, with its affinity in both caches."""
        image = super().votes(features)
        if self.config.text_keys == "off":
            return image
        beta, weights = self.selected["beta"], self._key_weights()
        seen: list[Tensor] = []
        self._mixed(features, beta, seen=seen)
        queries, keys = self._text_sides(features)
        cosine = queries @ self._text_keys_of_samples(keys).T
        text = ((self.config.text_beta or beta) * (cosine - 1)).exp()
        votes = self.selected["alpha"] * torch.lerp(text, image.affinities["image"], seen[2])
        votes = votes if weights is None else votes * weights
        return image._replace(votes=votes, affinities={**image.affinities, "text": text})

    def add_classes(self, class_weights: Tensor, features: Tensor, labels: Tensor) -> None:
        """Add classes; their class features also make their text keys. See `TipAdapter.add_classes`."""
        before = self.num_classes
        super().add_classes(class_weights, features, labels)
        self.prompt_weights = torch.cat([self.prompt_weights, self.class_weights[before:]])

    def _keep_classes(self, keep: list[int]) -> None:
        super()._keep_classes(keep)
        self.prompt_weights = self.prompt_weights[keep]


def make_text_keys(config: XMAdapterConfig, width: int, device: torch.device | None = None) -> TextKeys:
    """The text side that a configuration describes, for features of a width; on `meta` to count its weights."""
    if config.text_keys == "class":
        layers = 1 if config.network == "linear" else 2
        return ClassTextKeys(width, config.text_width or max(1, width // 4), layers, device)
    if config.text_keys == "residual":
        return ResidualTextKeys(width, device)
    # Without a text cache nothing reads it, and it has no weights.
    return MixedTextKeys(config.text_share)
