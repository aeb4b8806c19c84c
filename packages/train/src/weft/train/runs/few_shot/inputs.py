"""What heads of either kind read: features that were made before, or images and the texts of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from weft.core.few_shot import AdaptableEncoder, FewShotHead, ImageHead, Images, ImageTextEncoder
from weft.core.few_shot.images import Readable


@dataclass(frozen=True)
class Seen:
    """Some images, as either kind of head reads them.

    Attributes:
        features: Shape (images, width), or (views, images, width).
        images: The images themselves.
    """

    features: Tensor
    images: Images

    def by(self, head: FewShotHead) -> Readable:
        """What a head reads."""
        return self.images if isinstance(head, ImageHead) else self.features


@dataclass(frozen=True)
class Drawn:
    """One draw.

    Attributes:
        views: Training images under every augmentation.
        labels: Shape (samples,).
        chooser: Images and labels that choose hyper-parameters, or None.
        fingerprint: Of the training records.
    """

    views: Seen
    labels: Tensor
    chooser: tuple[Seen, Tensor] | None
    fingerprint: str


@dataclass(frozen=True)
class ClassTexts:
    """Classes by name.

    Attributes:
        names: Names by label.
        templates: Texts around them.
        texts: Name to texts about a class, or None.
        allow_duplicates: Whether names may repeat.
    """

    names: Sequence[str]
    templates: Sequence[str]
    texts: Mapping[str, Sequence[str]] | None
    allow_duplicates: bool

    def of(self, places: slice) -> ClassTexts:
        """Some of the classes."""
        names = self.names[places]
        texts = None if self.texts is None else {name: self.texts[name] for name in names}
        return replace(self, names=names, texts=texts)

    def weights(self, encoder: ImageTextEncoder) -> Tensor:
        """Their features, shape (classes, width)."""
        return encoder.class_weights(
            self.names, self.templates, texts=self.texts, allow_duplicates=self.allow_duplicates
        ).cpu()

    def adaptable(self, encoder: ImageTextEncoder) -> AdaptableEncoder:
        """The encoder for heads that adapt it."""
        return AdaptableEncoder(
            encoder, self.names, self.templates, texts=self.texts, allow_duplicates=self.allow_duplicates
        )


@dataclass(frozen=True)
class Transfer:
    """A test set of other classes.

    Attributes:
        seen: Its images.
        labels: Shape (images,).
        classes: The names of its classes and their texts.
        class_weights: Their features, shape (classes, width).
    """

    seen: Seen
    labels: Tensor
    classes: ClassTexts
    class_weights: Tensor
