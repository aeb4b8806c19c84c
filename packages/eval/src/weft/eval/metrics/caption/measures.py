"""What BLEU, ROUGE-L and CIDEr-D need of every image, computed once for scores and for intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.eval.metrics.alignment import Alignment, align, require_text
from weft.eval.metrics.caption.bleu import bleu_statistics
from weft.eval.metrics.caption.cider import DocumentFrequency, cider_d
from weft.eval.metrics.caption.ngrams import Array, NgramTable
from weft.eval.metrics.caption.rouge import rouge_l
from weft.eval.metrics.caption.texts import caption_texts


@dataclass(frozen=True, slots=True)
class Measures:
    """Per-image measures.

    Attributes:
        paired: Which ids were matched.
        candidates: The tokenised captions.
        bleu: Shape `(images, 10)`, see `bleu_statistics`.
        rouge: Shape `(images,)`, fractions.
        cider: Shape `(images,)`, 0 to 10.
    """

    paired: Alignment
    candidates: list[str]
    bleu: Array
    rouge: Array
    cider: Array

    @property
    def ids(self) -> list[Hashable]:
        """The images, in the order of the references."""
        return self.paired.ids


def measure(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Sequence[str]],
    *,
    tokenized: bool,
    frequency: DocumentFrequency | None,
    subset: bool,
) -> Measures:
    """Tokenise and measure captions; the arguments are those of `caption_scores`.

    Raises:
        ScoreInputError: Ids do not match or an image has no reference.
        ScoreTypeError: A caption is not text.
    """
    paired = align(predictions, references, subset=subset)
    require_text(predictions, paired.ids)
    candidates, groups = caption_texts(predictions, references, paired.ids, tokenized=tokenized)
    table = NgramTable([*candidates, *(text for group in groups for text in group)])
    numbers = np.arange(len(paired.ids))
    image = np.concatenate([numbers, np.repeat(numbers, [len(group) for group in groups])])
    return Measures(
        paired,
        candidates,
        bleu_statistics(table, image, len(numbers)),
        np.array([rouge_l(text, group) for text, group in zip(candidates, groups, strict=True)]),
        cider_d(table, image, len(numbers), frequency),
    )
