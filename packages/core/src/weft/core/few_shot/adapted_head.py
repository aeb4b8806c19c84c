"""What heads have in common that train units within the encoder, with the names of the classes as classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot.head_config import HeadConfig
from weft.core.few_shot.image_head import Adaptable, ImageHead
from weft.core.few_shot.images import Readable
from weft.core.few_shot.samples import Samples
from weft.core.few_shot.training import TrainingOptions, train_head
from weft.core.planning import plan

_HELD = "held."
# How far the cosine of a class's texts may be from that of its class weight, in 16 bits.
_SAME = 0.99

Tower = Literal["text", "vision"]


class AdaptedHeadConfig(TrainingOptions, HeadConfig):
    """What every head has that trains units within the encoder.

    Args:
        towers: Towers that are adapted.
    """

    learning_rate: float = Field(default=2e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=32, gt=0)
    select_epoch: bool = False
    towers: tuple[Tower, ...] = Field(default=("text", "vision"), min_length=1)

    @property
    def adapts_texts(self) -> bool:
        """Whether class names are read anew at every step."""
        return "text" in self.towers

    def units(self) -> Any:
        """The units, as `weft.core.attach` takes them."""
        raise AssertionError(f"{type(self).__name__} names no units")

    def trained_within(self, model: nn.Module) -> int:
        """What the units train."""
        return plan(model, self.units()).trainable_parameters


class AdaptedHead(ImageHead):
    """`z = scale · f' g'`, with `f'` and `g'` the features of image and class through the encoder with units.

    The head holds the units' tensors under the addresses that an adapter's file has. They are in the encoder only while
    the head is at work: one encoder serves any number of heads, and what was made with it stays true.
    """

    held: nn.Module
    named: Tensor
    _depth = 0

    def build(self, num_samples: int) -> None:
        """Draw the units' tensors, and make room for the class features."""
        super().build(num_samples)
        self._hold(self.required().start(self.config.units()))

    def build_like(self, num_samples: int, tensors: Mapping[str, Tensor]) -> None:
        """Make room for the tensors of a file, whose shapes only the encoder knows."""
        super().build(num_samples)
        held = {name: torch.zeros_like(value) for name, value in tensors.items() if name.startswith(_HELD)}
        self._hold({name.removeprefix(_HELD): value for name, value in held.items()})

    def use_encoder(self, adaptable: Adaptable) -> None:
        """As every `ImageHead` takes it; the tensors of one that is fitted must be those that its units need.

        Raises:
            FewShotError: Tensors are missing, unexpected or mis-shaped, or see `ImageHead.use_encoder`.
        """
        super().use_encoder(adaptable)
        if self.num_samples:
            wanted = {name: value.shape for name, value in adaptable.start(self.config.units()).items()}
            found = {name: value.shape for name, value in self.held.named_parameters()}
            odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            if odd:
                self.adaptable = None
                raise FewShotError(
                    f"`adaptable` must be an encoder whose units have the tensors of this head, but {len(odd)} differ, "
                    f"such as {odd[0]}. Fit the head again."
                )

    def class_features(self) -> Tensor:
        """Unit features of the class names through the adapted encoder, shape (classes, width)."""
        # While units are trained the features change; afterwards they are kept.
        if self.config.adapts_texts and any(value.requires_grad for value in self.held.parameters()):
            return self.required().class_features().to(self.class_weights)
        return self.named

    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Train the units, and keep the class features under them."""
        self.check_texts()
        with self.wearing() as adaptable:
            self.train_units(samples, validation, seed, self.options())
            self.read_classes(adaptable)

    def train_units(
        self, samples: Samples, validation: Samples | None, seed: int, options: TrainingOptions
    ) -> None:
        """Train what is held; arguments are those of `train_head`."""
        trained = [*self.held.parameters()]
        if "vision" not in self.config.towers:
            samples, validation = self.made_before(samples, validation, self.required().image_features)
        train_head(self, trained, samples, options, validation=validation, seed=seed)

    def options(self) -> TrainingOptions:
        """How units are trained; by default as the configuration says."""
        return self.config

    def image_features(self, adaptable: Adaptable, pixel_values: Tensor) -> Tensor:
        """Unit features of images through the adapted encoder; those that were made before are taken as they are."""
        return pixel_values if pixel_values.dim() == 2 else adaptable.image_features(pixel_values)

    def scores(self, features: Readable) -> Tensor:
        """The cosine of images and class names, both through the adapted encoder."""
        with self.wearing():
            return super().scores(features)

    def encoded(self, adaptable: Adaptable, images: Readable) -> Tensor:
        """Unit features of images through the adapted encoder, where the head is."""
        with self.wearing():
            return super().encoded(adaptable, images)

    def read_classes(self, adaptable: Adaptable) -> None:
        """Keep the features of the class names through the adapted encoder."""
        if not self.config.adapts_texts:
            self.named.copy_(self.class_weights)
            return
        with self.wearing(), torch.no_grad():
            self.named.copy_(adaptable.class_features())

    def train(self, mode: bool = True) -> Self:
        """Set the mode, of the units too."""
        if self._depth:
            self.required().train(mode)
        return super().train(mode)

    @contextmanager
    def wearing(self) -> Iterator[Adaptable]:
        """Within it the encoder has the units of this head."""
        adaptable = self.required()
        if self._depth:
            yield adaptable
            return
        with adaptable.wearing(self.config.units(), dict(self.held.named_parameters())):
            self._depth = 1
            try:
                adaptable.train(self.training)
                yield adaptable
            finally:
                self._depth = 0

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        self.held = nn.Module()
        for name, value in tensors.items():
            *path, last = name.split(".")
            place = self.held
            for word in path:
                if word not in place._modules:
                    place._modules[word] = nn.Module()
                place = place.get_submodule(word)
            # Past `register_parameter`, as banks do, since a slot may be called like an attribute.
            place._parameters[last] = nn.Parameter(value.clone(), requires_grad=False)
        self.register_buffer("named", self.class_weights.detach().clone())

    def check_texts(self) -> None:
        """Require the class weights to be the features of the texts that are read while units are trained.

        Raises:
            FewShotError: They are not.
        """
        if not self.config.adapts_texts:
            return
        with torch.no_grad():
            texts = self.required().class_features().to(self.class_weights)
        cosines = functional.cosine_similarity(texts, self.class_weights)
        if not float(cosines.min()) > _SAME:
            raise FewShotError(
                f"`class_weights` must be the features of the texts that the encoder was given, but those of class "
                f"{int(cosines.argmin())} have a cosine of {float(cosines.min()):.3f}. Give `AdaptableEncoder` the "
                "templates and texts that the class weights were made with."
            )
