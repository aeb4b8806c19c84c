"""CoOp: context vectors before every class name, learned through the frozen text encoder."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from weft.core.errors import FewShotError
from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.head_config import HeadConfig, register_head
from weft.core.few_shot.prompts import Prompts
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head

_SPREAD = 0.02


class PromptHeadConfig(TrainingOptions, HeadConfig):
    """What CoOp and CoCoOp have in common.

    Args:
        context_tokens: Number of context vectors.
        context_width: Width of a token of the text encoder.
        context: Words that the context starts from; by default it starts at random.
    """

    optimizer: Literal["adamw", "adam", "sgd"] = "sgd"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    warmup_epochs: int = Field(default=1, ge=0)
    context_tokens: int = Field(default=16, gt=0)
    context_width: int = Field(default=512, gt=0)
    context: str = ""


@register_head
class CoOpConfig(PromptHeadConfig):
    """CoOp; the paper trains for 50 epochs with 1 shot, 100 with 2 and 4, 200 with 8 and 16, and 50 on ImageNet."""

    method: Literal["coop"] = "coop"
    epochs: int = Field(default=50, ge=0)
    batch_size: int = Field(default=32, gt=0)
    select_epoch: bool = False

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """The context, shared by all classes."""
        return self.context_tokens * self.context_width


class CoOp(FewShotHead):
    """`z = scale · f g([v_1 … v_M, class name])`, with v learned and g the frozen text encoder.

    After `fit` the class features are kept, so that neither logits nor files need the text encoder. `for_classes`
    puts the learned context before other names.

    Source: Zhou et al. 2022 (CoOp), eq. 2 to 4: one context for all classes, the name at the end.
    """

    config_class: ClassVar[type[HeadConfig]] = CoOpConfig
    prompts: Prompts | None = None
    context: nn.Parameter
    prompted: Tensor

    def use_prompts(self, prompts: Prompts) -> None:
        """Give the text encoder that the context is learned through, such as `ContextPrompts`, before `fit`.

        Raises:
            FewShotError: Its tokens have another width than `context_width`.
        """
        if prompts.width != self.config.context_width:
            raise FewShotError(
                f"`context_width` must be the width of the text encoder's tokens ({prompts.width}), but is "
                f"{self.config.context_width}. Set it in the configuration."
            )
        self.prompts = prompts

    def build(self, num_samples: int) -> None:
        """Make a random context, and room for the class features."""
        shape = (self.config.context_tokens, self.config.context_width)
        self.context = nn.Parameter(_SPREAD * torch.randn(shape), requires_grad=False)
        self.register_buffer("prompted", torch.zeros(self.num_classes, self.width))

    def class_features(self) -> Tensor:
        """Unit text features under the learned context, shape (classes, width)."""
        return self.prompted

    def for_classes(self, class_weights: Tensor, prompts: Prompts) -> Self:
        """A fitted head for other classes, whose names follow the learned context.

        Args:
            class_weights: Unit text features of these classes, shape (classes, width).
            prompts: Their prompts, with as many context tokens as this head has.

        Raises:
            FewShotError: This head is not fitted, or an argument breaks a rule.
        """
        other = self._for_others(class_weights)
        other.use_prompts(prompts)
        with torch.no_grad():
            other.prompted.copy_(prompts(self.context))
        return other

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train the context and what shifts it, and keep the class features."""
        prompts = self._required_prompts()
        self._start(prompts)
        train_head(self, [*self.parameters()], samples, self.config, validation=validation, seed=seed)
        with torch.no_grad():
            self.prompted.copy_(prompts(self.context))

    def _start(self, prompts: Prompts) -> None:
        if self.config.context:
            words = prompts.embed(self.config.context)
            if len(words) != self.config.context_tokens:
                raise FewShotError(
                    f"`context_tokens` must be the number of tokens of `context` ({len(words)} for "
                    f"{self.config.context!r}), but is {self.config.context_tokens}. Change one of them."
                )
            self.context.data.copy_(words)

    def scores(self, features: Tensor) -> Tensor:
        """The cosine with the class features under the context."""
        # While it is trained, and while epochs are compared, the context changes; afterwards its features are kept.
        learning = self.context.requires_grad
        weights = self._required_prompts()(self.context) if learning else self.prompted
        return self.config.logit_scale * (features @ weights.to(features).T)

    def _required_prompts(self) -> Prompts:
        if self.prompts is None:
            raise FewShotError(
                f"{type(self).__name__} must have a text encoder to learn through, but has none. Call "
                "`head.use_prompts(ContextPrompts(encoder, class_names))` first."
            )
        return self.prompts
