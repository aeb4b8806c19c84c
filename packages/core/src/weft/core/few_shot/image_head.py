"""What heads have in common that read images through an encoder, instead of features that were made before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from weft.core.errors import FewShotError
from weft.core.few_shot.head import FewShotHead
from weft.core.few_shot.images import Images, Readable
from weft.core.few_shot.projection import VisualProjection
from weft.core.few_shot.samples import Samples, checked_labels

# Images that are scored at a time.
_TOGETHER = 64
_DIGEST = 8


class Adaptable(Protocol):
    """What these heads need of an encoder; `AdaptableEncoder` is one."""

    num_classes: int

    def fingerprint(self) -> str:
        """Hexadecimal digits that change with the encoder's weights."""

    def start(self, units: Any) -> dict[str, Tensor]:
        """Key to starting value, on the CPU, of every tensor that units train."""

    def wearing(self, units: Any, tensors: Mapping[str, nn.Parameter]) -> AbstractContextManager[None]:
        """Within it the encoder has units with these tensors; outside it is as it was."""

    def train(self, mode: bool) -> None:
        """Whether units that it wears drop values; the encoder itself stays in evaluation mode."""

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Unit features of images, shape (images, width); gradients reach the units."""

    def class_features(self) -> Tensor:
        """Unit features of the classes, shape (classes, width); gradients reach the units."""

    def projection(self) -> VisualProjection:
        """The last map of its image side."""

    def layer_tokens(self, last: int) -> Any:
        """The last layers of its towers, as a `weft.core.few_shot.layer_tokens.LayerTokens`."""


@dataclass(frozen=True)
class ImageSamples(Samples):
    """Labelled images; `views` has width 0, since nothing of them is made before.

    Attributes:
        images: The images.
    """

    images: Images

    def mean(self) -> Any:
        """The images themselves, of which the first augmentation is scored."""
        return self.images

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One random augmentation of each of some images, and their labels."""
        return self.images.draw(rows, generator), self.labels[rows.to(self.labels.device)]


class ImageHead(FewShotHead):
    """A head that reads images: `fit`, `logits` and the like take pixel values or `Images` where others take features.

    It holds what it trains and no part of the encoder, which `use_encoder` gives before `fit` and again after `load`.
    Its file names the encoder by a fingerprint, so that no other one is taken.
    """

    adaptable: Adaptable | None = None
    encoder_digest: Tensor

    def use_encoder(self, adaptable: Adaptable) -> None:
        """Give the encoder that images are read through, such as an `AdaptableEncoder` for the classes of this head.

        Raises:
            FewShotError: It is for another number of classes, or this head was fitted on another encoder.
        """
        if adaptable.num_classes != self.num_classes:
            raise FewShotError(
                f"`adaptable` must be for the {self.num_classes} classes of this head, but is for "
                f"{adaptable.num_classes}. Make it with the names that the class weights were made with."
            )
        if self.num_samples and not torch.equal(self.encoder_digest.cpu(), _digest(adaptable)):
            raise FewShotError(
                f"`adaptable` must be the encoder that this {type(self).__name__} was fitted on, but its weights are "
                "others. Load that encoder, or fit the head again."
            )
        self.adaptable = adaptable

    def build(self, num_samples: int) -> None:
        """Make room for the fingerprint of the encoder."""
        none = torch.zeros(_DIGEST, dtype=torch.uint8)
        self.register_buffer("encoder_digest", none if self.adaptable is None else _digest(self.adaptable))

    @abstractmethod
    def image_features(self, adaptable: Adaptable, pixel_values: Tensor) -> Tensor:
        """Unit features of images as this head adapts them, shape (images, width)."""

    def class_features(self) -> Tensor:
        """Unit features of the classes as this head adapts them, shape (classes, width)."""
        return self.class_weights

    def scores(self, features: Readable) -> Tensor:
        """The cosine of images and classes, both as the head adapts them."""
        adaptable = self.required()
        return self.config.logit_scale * self.encoded(adaptable, features) @ self.class_features().T

    def encoded(self, adaptable: Adaptable, images: Readable) -> Tensor:
        """Unit features of pixel values or `Images` as this head adapts them, where the head is."""
        batches = [self.image_features(adaptable, batch) for batch in batches_of(images)]
        return torch.cat(batches).to(self.class_weights)

    def made_before(
        self, samples: Samples, validation: Samples | None, make: Callable[[Tensor], Tensor]
    ) -> tuple[Samples, Samples | None]:
        """What comes of images under every augmentation, for a training that does not change it.

        Args:
            samples: Training images.
            validation: Images that choose the epoch, if there are any.
            make: Pixel values to a tensor of shape (images, width), which `image_features` then takes as well.
        """

        def before(given: Samples) -> Samples:
            assert isinstance(given, ImageSamples)
            batches = [given.images.batches(_TOGETHER, view) for view in range(given.images.views)]
            views = torch.stack([torch.cat([make(batch) for batch in view]) for view in batches])
            return Samples(views.to(given.labels.device), given.labels, given.dtype)

        with torch.no_grad():
            return before(samples), None if validation is None else before(validation)

    def logits(self, features: Readable, classes: Sequence[int] | None = None) -> Tensor:
        """As every head's, of images; no gradients are kept."""
        with torch.no_grad():
            return super().logits(features, classes)

    def zero_shot(self, features: Readable) -> Tensor:
        """Logits of the class weights alone, and of the encoder as it is."""
        adaptable = self.required()
        with torch.no_grad():
            found = torch.cat(
                [adaptable.image_features(batch) for batch in Images.of(features).batches(_TOGETHER)]
            )
        return self.config.logit_scale * found.to(self.class_weights) @ self.class_weights.T

    def transfer_logits(self, features: Readable, class_weights: Tensor) -> Tensor:
        """Scores of classes that the head was not fitted on, by the images' adapted features; see `for_classes`."""
        images, weights = self._checked(features), super()._checked(class_weights, "class_weights")
        with torch.no_grad():
            found = self.encoded(self.required(), images)
        return self.config.logit_scale * found @ weights.T

    def for_classes(self, class_weights: Tensor, adaptable: Adaptable) -> Self:
        """A fitted head for other classes, whose names the adapted encoder reads.

        Args:
            class_weights: Unit text features of these classes, shape (classes, width).
            adaptable: The same encoder, for these classes.

        Raises:
            FewShotError: This head is not fitted, or an argument breaks a rule.
        """
        other = self._for_others(class_weights)
        other.use_encoder(adaptable)
        other.read_classes(adaptable)
        return other

    def read_classes(self, adaptable: Adaptable) -> None:
        """Take what stands for the classes from their names; by default nothing does but the class weights."""

    def required(self) -> Adaptable:
        """The encoder, or an error that says how to give one."""
        if self.adaptable is None:
            raise FewShotError(
                f"{type(self).__name__} must have an encoder to read images with, but has none. Call "
                "`head.use_encoder(AdaptableEncoder(encoder, class_names))` first."
            )
        return self.adaptable

    def _samples(
        self, features: Readable, labels: Tensor, name: str, num_classes: int | None = None
    ) -> Samples:
        images = Images.of(features, name.replace("features", "images"))
        if len(images) == 0:
            raise FewShotError(f"`{name}` must hold at least one sample, but is empty. Check the split.")
        found = checked_labels(labels, len(images), num_classes=num_classes or self.num_classes, name=name)
        place, dtype = self.class_weights.device, self.class_weights.dtype
        nothing = torch.empty(images.views, len(images), 0, device=place)
        return ImageSamples(nothing, found.to(place, torch.int64), dtype, images)

    def _checked(self, features: Readable, name: str = "features") -> Any:
        self._require_fitted()
        return Images.of(features, name)


def batches_of(images: Readable) -> Iterable[Tensor]:
    """Images a few at a time; pixel values are one batch."""
    return [images] if isinstance(images, Tensor) else images.batches(_TOGETHER)


def _digest(adaptable: Adaptable) -> Tensor:
    return torch.tensor(list(bytes.fromhex(adaptable.fingerprint())[:_DIGEST]), dtype=torch.uint8)
