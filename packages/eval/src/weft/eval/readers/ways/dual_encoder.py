"""Two encoders and one space: CLIP, SigLIP and SigLIP 2 of transformers, open_clip's models, weft's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from weft.eval.readers.abilities import Ability
from weft.eval.readers.batch import Batch, Losses, batch_of, stored
from weft.eval.readers.classes import Classes
from weft.eval.readers.classifying import class_features, class_rows, columns, told_apart
from weft.eval.readers.contrast import contrast, identities
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import OneQuestion, check_sides
from weft.eval.readers.owners import owners
from weft.eval.readers.paired import unpaired
from weft.eval.readers.processor import pictured, unread
from weft.eval.readers.rows import Row

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


class DualEncoderReader(OneQuestion):
    """Compares texts with pictures; a row's text is what it reads, and its picture is what the text belongs to.

    A model that adds a bias to its similarities is trained by sigmoids, as SigLIP; one that does not, by softmax, as
    CLIP. Rows that show the same text or picture are no negatives of one another.
    """

    name: ClassVar[str] = "dual_encoder"
    objective = "contrastive"

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._own = isinstance(config, DualEncoderConfig)
        self._open = isinstance(config, OpenClipConfig)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if isinstance(config, DualEncoderConfig | OpenClipConfig):
            return unpaired(processor)
        return _other(config) or unread(processor)

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
    def _shown(self) -> tuple[int, int | None]:
        return 1, None if self._own else 1

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        super().check(row)
        if self.limits.too_long == "refuse":
            self._fitting([row])

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        self._check(rows)
        if order := told_apart(rows):
            return self._told_apart(rows, order)
        if len(rows) < 2:
            raise ReaderError(
                f"`rows` must hold at least two rows to compare, but holds {len(rows)}. Raise the batch size."
            )
        shorter = self._without_others(rows, self._fitting(rows))
        if shorter is not None:
            return shorter
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
        of_texts = columns((), [(task, classes)], texts=True).of_texts
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
        return _unit(
            model.encode_text(inputs["input_ids"]) if self._open else model.get_text_features(**inputs)
        )

    def embed_pictures(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_pictures`."""
        inputs = {name: value for name, value in batch.inputs.items() if name not in TEXT}
        if self._own:
            return model.encode_image(**inputs)
        return _unit(
            model.encode_image(inputs["pixel_values"]) if self._open else model.get_image_features(**inputs)
        )

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
        bias = getattr(inner, "logit_bias", None)
        return output.text_embeds, output.image_embeds, inner.logit_scale.exp(), bias

    def _told_apart(self, rows: Sequence[Row], order: Sequence[tuple[str, Classes]]) -> Batch:
        """A batch whose texts are those of the classes of its tasks."""
        texts = [text for task, classes in order for text in class_rows(task, classes)]
        if len(self._fitting(texts)) < len(texts):
            raise ReaderError(_LONG_CLASS)
        return self._batch(
            rows,
            self._texts(texts) | self._pictures(rows, taught=True),
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
        padding = True if masked else "max_length"
        cut = {"truncation": True, "max_length": self._places}
        return dict(tokenizer(texts, padding=padding, padding_side="right", return_tensors="pt", **cut))

    def _pictures(self, rows: Sequence[Row], *, taught: bool = False) -> dict[str, Tensor]:
        if self.paired:
            return self.processor.pictures(rows, taught=taught)
        self._check(rows)
        # The picture's own processor: what the whole would set again, such as the size of a patch, is as it was saved.
        return pictured(self.processor, rows)

    def _batch(self, rows: Sequence[Row], inputs: dict[str, Tensor], **fields: Any) -> Batch:
        media = {} if self.paired else {name: value for name, value in inputs.items() if name not in TEXT}
        owned = owners([len(row.pictures) for row in rows], media)
        fields = {"objective": self.objective, "owners": owned, "identities": identities(rows), **fields}
        return batch_of(rows, inputs, **fields)


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


def _unit(output: Any) -> Tensor:
    return functional.normalize(getattr(output, "pooler_output", output), dim=-1)


READER = DualEncoderReader
