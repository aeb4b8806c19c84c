"""What the head of a BLIP decides, whoever wrote the model: comparing and matching, answers, captions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from weft.eval.readers.abilities import Ability
from weft.eval.readers.answer_tokens import padded_ids
from weft.eval.readers.batch import IGNORED, Batch, Losses, batch_of
from weft.eval.readers.contrast import identities
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import OneQuestion, check_sides
from weft.eval.readers.owners import owners
from weft.eval.readers.rows import Row

Head = Literal["compare", "answer", "describe"]
_ABLE: dict[Head, frozenset[Ability]] = {
    "compare": frozenset({"embed", "match"}),
    "answer": frozenset({"write", "score"}),
    "describe": frozenset({"write", "score"}),
}
IDS, MASK, PIXELS = "input_ids", "attention_mask", "pixel_values"


class BlipHeadReader(OneQuestion):
    """A reader of BLIPs, each of which was built with one head."""

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._start, self._pad = config.text_config.bos_token_id, config.text_config.pad_token_id

    @property
    @abstractmethod
    def head(self) -> Head:
        """What the model was built for."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What the head can do."""
        return _ABLE[self.head]

    @property
    def objective(self) -> str:
        """A comparison, or generation of the answer."""
        return "contrastive" if self.head == "compare" else "generation"

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`; either side of a comparison may be absent, in all rows alike."""
        texts = pictures = True
        if self.head == "compare":
            texts, pictures = check_sides(rows)
        else:
            self._check(rows)
        inputs = (self._texts(rows) if texts else {}) | (self._pictures(rows) if pictures else {})
        return self._batch(rows, inputs)

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`; of each answer, smoothed as the config says."""
        return self._scored(model, batch, self.config.text_config.label_smoothing)

    def likelihoods(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.likelihoods`; never smoothed."""
        return -self._scored(model, batch, 0.0).sums

    @abstractmethod
    def _scored(self, model: Any, batch: Batch, smoothing: float) -> Losses:
        """How unlikely answers or captions are."""

    @abstractmethod
    def _texts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The inputs that texts become."""

    @abstractmethod
    def _pictures(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The inputs that pictures become."""

    def _starts(self, inputs: dict[str, Tensor], count: int) -> list[list[int]]:
        """What the decoder reads before each answer."""
        if self.head == "answer":
            return [[self._start]] * count
        # A caption continues where its prompt ends: in the place of the prompt's last special token.
        kept = inputs[MASK].sum(1).tolist()
        return [
            [self._start, *ids[1 : length - 1].tolist()]
            for ids, length in zip(inputs[IDS], kept, strict=True)
        ]

    def _taught(
        self, starts: Sequence[list[int]], answers: Sequence[list[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder reads, its mask, and the labels."""
        pairs = list(zip(starts, answers, strict=True))
        read = [[*start, *answer] for start, answer in pairs]
        learned = [[*[IGNORED] * len(start), *answer] for start, answer in pairs]
        mask = padded_ids([[1] * len(own) for own in read], 0)
        return padded_ids(read, self._pad), mask, padded_ids(learned, IGNORED)

    def _in_rows(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Tokens that were written to some rows at a time, in the order of the rows."""
        found: dict[int, Tensor] = {}
        for places, tokens in parts:
            found |= dict(zip(places.tolist(), tokens, strict=True))
        rows = [found[place] for place in range(len(found))]
        return pad_sequence(rows, batch_first=True, padding_value=self._pad)

    def _batch(self, rows: Sequence[Row], inputs: dict[str, Tensor], **fields: Any) -> Batch:
        media = {PIXELS: inputs[PIXELS]} if PIXELS in inputs and not self.paired else {}
        owned = owners([len(row.pictures) for row in rows], media)
        same = identities(rows) if self.head == "compare" else {}
        return batch_of(rows, inputs, objective=self.objective, owners=owned, identities=same, **fields)

    def _check_compares(self, ability: Ability) -> None:
        if self.head != "compare":
            raise self._refusal(ability)


def by_length(mask: Tensor) -> list[tuple[int, Tensor]]:
    """Each length of a text with the places of the rows that have it.

    All rows stay in the pass of every length, for they are routed to their tasks by their places.
    """
    lengths = mask.sum(1)
    return [(length, (lengths == length).nonzero().squeeze(1)) for length in lengths.unique().tolist()]
