"""Two encoders and one space: CLIP, SigLIP and SigLIP 2 of transformers, open_clip's models, weft's own."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
    AutoModel,
)

from weft.core.composites import DualEncoderConfig
from weft.data import MediaRef
from weft.eval.readers.abilities import Ability
from weft.eval.readers.batch import Batch, Losses, batch_of
from weft.eval.readers.classes import Classes
from weft.eval.readers.classifying import class_features, class_rows, columns, told_apart
from weft.eval.readers.contrast import contrast
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import check_one_question, check_sides
from weft.eval.readers.owners import owners
from weft.eval.readers.paired import PairedProcessor, stored
from weft.eval.readers.processor import pictured
from weft.eval.readers.reader import Reader
from weft.eval.readers.rows import Row, decoded

TEXT = ("input_ids", "attention_mask", "token_type_ids")
_LONG_CLASS = (
    "`too_long` must be 'refuse' or 'cut' where rows are told apart by classes, but is 'drop', and the text of a class "
    "is too long. Shorten `templates`, or set training.too_long=cut."
)


@dataclass(frozen=True)
class OpenClipConfig:
    """Stands for a model of open_clip, which has no config of transformers.

    Args:
        context_length: Tokens of every text.
    """

    context_length: int = 77
    model_type: str = "open_clip"


class DualEncoderReader(Reader):
    """Compares texts with pictures; a row's text is what it reads, and its picture is what the text belongs to.

    A model that adds a bias to its similarities is trained by sigmoids, as SigLIP; one that does not, by softmax, as
    CLIP. Rows that show the same text or picture are no negatives of one another.
    """

    name: ClassVar[str] = "dual_encoder"

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._own = isinstance(config, DualEncoderConfig)
        self._open = isinstance(config, OpenClipConfig)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if isinstance(config, DualEncoderConfig | OpenClipConfig):
            paired = isinstance(processor, PairedProcessor)
            return None if paired else "a tokenizer and pictures of its own are needed (a PairedProcessor)"
        other = _other(config)
        if other is not None:
            return other
        if getattr(processor, "image_processor", None) is None or not hasattr(processor, "tokenizer"):
            return f"its processor ({type(processor).__name__}) does not read pictures and texts"
        return None

    @classmethod
    def builds(cls, config: Any) -> bool:
        """See `Reader.builds`."""
        return isinstance(config, DualEncoderConfig | OpenClipConfig) or _other(config) is None

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """`AutoModel`."""
        return AutoModel

    @property
    def abilities(self) -> frozenset[Ability]:
        """It embeds both sides, and so classifies; weft's own reads stored features as well."""
        both: frozenset[Ability] = frozenset({"embed", "classify"})
        return both | {"features"} if self._own else both

    @property
    def objective(self) -> str:
        """Comparison of text and picture."""
        return "contrastive"

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        if not self.paired:
            super().check(row)
        self._check([row])
        if self.limits.too_long == "refuse":
            self._fitting([row])

    def _check(self, rows: Sequence[Row]) -> None:
        check_one_question(rows, least=1, most=None if self._own else 1)

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        self._check(rows)
        if order := told_apart(rows):
            return self._told_apart(rows, order)
        if len(rows) < 2:
            raise ReaderError(
                f"`rows` must hold at least two rows to compare, but holds {len(rows)}. Raise the batch size."
            )
        fitting = self._fitting(rows)
        if len(fitting) < len(rows):
            left_out = tuple(row.name for place, row in enumerate(rows) if place not in fitting)
            return self.training([rows[place] for place in fitting]).without(left_out)
        return self._batch(rows, self._texts(rows) | self._pictures(rows, taught=True))

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`; either side may be absent, in all rows alike."""
        texts, pictures = check_sides(rows)
        inputs = (self._texts(rows) if texts else {}) | (self._pictures(rows) if pictures else {})
        if TEXT[0] in inputs and len(self._fitting(rows)) < len(rows):
            raise ReaderError(
                f"`too_long` must be 'refuse' or 'cut' where rows are asked, but is {self.limits.too_long!r}. Each of "
                "them has to be answered."
            )
        return self._batch(rows, inputs)

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`; each row counts one."""
        texts, images, scale, bias = self._compared(model, batch)
        if batch.columns is None:
            each = contrast(texts, images, scale, bias, batch.identities)
        else:
            # A bias is the same for every class, and makes no difference among them.
            each = batch.columns.losses(scale * images @ class_features(texts, batch.columns.of_texts).T)
        return Losses(each, torch.ones(len(each), device=each.device))

    def class_features(self, model: Any, task: str, classes: Classes, *, batch_size: int = 128) -> Tensor:
        """See `Reader.class_features`: unit vectors, shape `(classes, size)`."""
        rows = class_rows(task, classes)
        found = [
            self.embed_texts(model, self.asking(rows[start : start + batch_size]).beside(model))
            for start in range(0, len(rows), batch_size)
        ]
        counts = torch.tensor([len(own) for own in classes.texts])
        of_texts = torch.arange(len(counts)).repeat_interleave(counts)
        return class_features(torch.cat(found), of_texts.to(found[0].device))

    def classify(self, model: Any, batch: Batch, features: Tensor | None) -> Tensor:
        """See `Reader.classify`: cosines."""
        assert features is not None, "made by `class_features`"
        return self.embed_pictures(model, batch) @ features.T

    def embed_texts(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_texts`."""
        inputs = {name: value for name, value in batch.inputs.items() if name in TEXT}
        if self._own:
            return model.encode_text(**inputs)
        if self._open:
            return functional.normalize(model.encode_text(inputs["input_ids"]), dim=-1)
        return _unit(model.get_text_features(**inputs))

    def embed_pictures(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_pictures`."""
        inputs = {name: value for name, value in batch.inputs.items() if name not in TEXT}
        if self._own:
            return model.encode_image(**inputs)
        if self._open:
            return functional.normalize(model.encode_image(inputs["pixel_values"]), dim=-1)
        return _unit(model.get_image_features(**inputs))

    def with_features(self, model: Any, batch: Batch) -> Batch:
        """See `Reader.with_features`."""
        if not self._own:
            raise self._refusal("features")
        return stored(batch, model.encode_images(batch.inputs["pixel_values"]))

    def _compared(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Both features, the scale and the bias, in one call of the model."""
        if self._open:
            made = model(batch.inputs["pixel_values"], batch.inputs["input_ids"])
            return made[1], made[0], made[2], made[3] if len(made) > 3 else None
        output = model(**batch.inputs)
        if self._own:
            return output.text_embeds, output.image_embeds, output.logit_scale, None
        inner = getattr(model, "module", model)
        return (
            output.text_embeds,
            output.image_embeds,
            inner.logit_scale.exp(),
            getattr(inner, "logit_bias", None),
        )

    def _told_apart(self, rows: Sequence[Row], order: Sequence[tuple[str, Classes]]) -> Batch:
        """A batch whose texts are those of the classes of its tasks."""
        texts = [text for task, classes in order for text in class_rows(task, classes)]
        if len(self._fitting(texts)) < len(texts):
            raise ReaderError(_LONG_CLASS)
        batch = self._batch(rows, self._texts(texts) | self._pictures(rows, taught=True))
        return replace(
            batch,
            objective="classification",
            columns=columns(rows, order, texts=True),
            text_tasks=tuple(text.task for text in texts),
        )

    @property
    def _places(self) -> int:
        return min(self.config.text_config.max_position_embeddings, self.processor.tokenizer.model_max_length)

    def _fitting(self, rows: Sequence[Row]) -> list[int]:
        """Places of the rows whose text the model has room for."""
        if self.paired or self.limits.too_long == "cut":
            return list(range(len(rows)))
        lengths = [len(ids) for ids in self.processor.tokenizer([row.text for row in rows])["input_ids"]]
        longest = min(self._places, self.limits.tokens or self._places)
        limits = Limits(tokens=longest, too_long=self.limits.too_long)
        return limits.fitting(rows, lengths, [0] * len(rows))

    def _texts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        if self.paired:
            return self.processor.texts(rows)
        texts, tokenizer = [row.text for row in rows], self.processor.tokenizer
        # A text without a mask is pooled where the longest would end: all have its length.
        masked = "attention_mask" in tokenizer.model_input_names
        made = tokenizer(
            texts,
            padding=True if masked else "max_length",
            truncation=True,
            max_length=self._places,
            padding_side="right",
            return_tensors="pt",
        )
        return dict(made)

    def _pictures(self, rows: Sequence[Row], *, taught: bool = False) -> dict[str, Tensor]:
        if self.paired:
            return self.processor.pictures(rows, taught=taught)
        self._check(rows)
        # The picture's own processor: what the whole would set again, such as the size of a patch, is as it was saved.
        return pictured(self.processor, [picture for row in rows for picture in decoded(row)])

    def _batch(self, rows: Sequence[Row], inputs: dict[str, Tensor]) -> Batch:
        media = {} if self.paired else {name: value for name, value in inputs.items() if name not in TEXT}
        owned = owners([len(row.pictures) for row in rows], media)
        same = identities(rows)
        return batch_of(rows, inputs, objective="contrastive", owners=owned, identities=same)


def _other(config: Any) -> str | None:
    """Why a model of transformers is built in another way, or None."""
    kind = MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING.get(type(config), None)
    if kind is None:
        return "it is not known to compare texts with pictures"
    named = config.architectures or []
    # A config that names no class may be that of a model that writes.
    if kind.__name__ not in named and (named or type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING):
        return f"its config names {', '.join(named) or 'no architecture'}, not {kind.__name__}"
    return None


def identities(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Numbers of the text and of the pictures of rows, equal where rows show the same; see `Batch`."""
    shown = [tuple(_address(picture) for picture in row.pictures) for row in rows]
    return {"text": _numbered(row.text for row in rows), "image": _numbered(shown)}


def _address(picture: Any) -> Hashable:
    if isinstance(picture, MediaRef):
        return picture.place
    return hashlib.sha256(picture.tobytes()).hexdigest(), picture.size


def _numbered(values: Iterable[Hashable]) -> Tensor:
    digests = [hashlib.sha256(repr(value).encode()).digest()[:8] for value in values]
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests])


def _unit(output: Any) -> Tensor:
    return functional.normalize(getattr(output, "pooler_output", output), dim=-1)


READER = DualEncoderReader
