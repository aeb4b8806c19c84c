"""Prompt and answer in one sequence: what readers of decoders have in common."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForImageTextToText,
    BlipConfig,
)

from weft.core.adapted.model import packed_rows
from weft.eval.readers.abilities import Ability
from weft.eval.readers.answer_tokens import AnswerTokens, stop_tokens
from weft.eval.readers.batch import IGNORED, Batch, Losses, batch_of, token_losses
from weft.eval.readers.cross_attended import rows_without_pictures, text_inputs
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import check_answers
from weft.eval.readers.owners import owners
from weft.eval.readers.packing import pack
from weft.eval.readers.picture_features import COMPANY, make_features, takes_features
from weft.eval.readers.processor import blank, processed
from weft.eval.readers.reader import Reader
from weft.eval.readers.rows import Row, ask
from weft.eval.readers.video_frames import Film
from weft.eval.readers.writing import Writing

Side = Literal["left", "right"]
IDS, MASK = "input_ids", "attention_mask"


@dataclass(frozen=True)
class Encoded:
    """Prompts as the processor makes them.

    Attributes:
        sequences: For each row, its tensors along the sequence, without padding.
        media: Everything else, for the whole batch.
        gaps: For each row, the places of its sequence at which answers are, one for each answer that is trained on
            or read apart.
    """

    sequences: list[dict[str, Tensor]]
    media: dict[str, Tensor]
    gaps: list[list[int]]


@dataclass(frozen=True)
class Piece:
    """The tokens of an answer among what is read, and whether it is trained on."""

    ids: list[int]
    learned: bool


class OneSequence(Reader):
    """Reads prompts by the model's processor and appends the tokens of answers.

    `padding` is the side that training rows are filled up at. On the left, answers end together, and the fewest places
    need logits.
    """

    objective = "generation"
    padding: Side = "left"
    packs: bool = False

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        tokenizer = processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._tokens = AnswerTokens(tokenizer)
        self._stops = stop_tokens(tokenizer, config)
        self._keeps_logits = _keeps_logits(config)
        self._takes_features = takes_features(config) and image_token(config) is not None

    def _owners(self, rows: Sequence[Row], encoded: Encoded) -> dict[str, Tensor]:
        number, tokens = image_token(self.config), None
        if number is not None:
            tokens = torch.tensor([int(row[IDS].eq(number).sum()) for row in encoded.sequences])
        films = {name: value for name, value in encoded.media.items() if _is_of_videos(name)}
        media = {name: value for name, value in encoded.media.items() if name not in films}
        found = owners([len(row.stills) for row in rows], media, self._by_row, tokens)
        if any(row.videos for row in rows):
            shown = owners([len(row.videos) for row in rows], films)
            found |= {"videos" if name == "images" else name: value for name, value in shown.items()}
        return found

    @cached_property
    def _by_row(self) -> frozenset[str]:
        """Tensors that have one entry for each row: those that keep one where a row shows two pictures."""
        shown = self._of_two_pictures if self.reads_several else {}
        return frozenset(name for name, entries in shown.items() if entries == 1)

    @cached_property
    def _of_two_pictures(self) -> dict[str, int]:
        """What a row of two pictures becomes beside its tokens: name of each tensor to the number of its entries."""
        media = self._prompts([ask("a", [blank(), blank()])], taught=False).media
        return {name: len(value) for name, value in media.items()}

    @classmethod
    def builds(cls, config: Any) -> bool:
        """See `Reader.builds`."""
        # A BLIP is known there too, by its captioning head alone.
        return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not isinstance(config, BlipConfig)

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer."""
        return self.processor.tokenizer.convert_tokens_to_ids(self._stops)

    @property
    @abstractmethod
    def reads_several(self) -> bool:
        """Whether a row may show several pictures."""

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """`AutoModelForImageTextToText`."""
        return AutoModelForImageTextToText

    @property
    def abilities(self) -> frozenset[Ability]:
        """It writes, and scores given answers; many models read features in the place of pictures as well."""
        return frozenset({"write", "score", "features"} if self._takes_features else {"write", "score"})

    @abstractmethod
    def _prompts(self, rows: Sequence[Row], taught: bool) -> Encoded:
        """What is read before the last answer of each row, with a gap for each answer of a row that is taught."""

    @abstractmethod
    def _answers(self, row: Row, prompt: dict[str, Tensor]) -> list[Piece]:
        """The answers of a row that is taught, one for each gap of its prompt."""

    @abstractmethod
    def _answer(self, text: str) -> list[int]:
        """The tokens of an answer after a prompt, its end included."""

    def answer_length(self, answer: str) -> int:
        """See `Reader.answer_length`."""
        return len(self._answer(answer))

    @abstractmethod
    def _filling(self, name: str) -> int:
        """What a tensor that runs along the sequence holds at the tokens of an answer."""

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        check_answers(rows)
        encoded = self._prompts(rows, taught=True)
        pieces = [self._answers(row, prompt) for row, prompt in zip(rows, encoded.sequences, strict=True)]
        grown = [
            self._grown(prompt, gaps, own)
            for prompt, gaps, own in zip(encoded.sequences, encoded.gaps, pieces, strict=True)
        ]
        answers = [max(len(piece.ids) for piece in own if piece.learned) for own in pieces]
        fitting = self.limits.fitting(rows, [len(row[IDS]) for row in grown], answers)
        shorter = self._without_others(rows, fitting)
        if shorter is not None:
            return shorter
        inputs = self._padded(grown, self.padding)
        targets = inputs.pop("labels")
        places = (targets[:, 1:] != IGNORED).any(0).nonzero().squeeze(1)
        made = {**inputs, **encoded.media}
        return batch_of(rows, made, labels=targets, positions=places, owners=self._owners(rows, encoded))

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`."""
        encoded = self._prompts(rows, taught=False)
        made = {**self._padded(encoded.sequences, "left"), **encoded.media}
        return batch_of(rows, made, owners=self._owners(rows, encoded))

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`; the head is computed where answers are, as far as the model can be told."""
        assert batch.labels is not None, "made by `training`"
        assert batch.positions is not None, "made by `training`"
        features = {} if batch.features is None else batch.features.handed()
        if self.packs:
            return self._packed_losses(model, batch, features)
        logits = self._logits(model, {**batch.inputs, **features}, batch.positions)
        bare = rows_without_pictures(batch)
        if bare is not None:
            # All rows stay in every pass, for they are routed to their tasks by their places.
            without = self._logits(model, text_inputs(batch.inputs), batch.positions)
            logits = torch.where(bare[:, None, None], without, logits)
        return token_losses(logits, batch.labels[:, batch.positions + 1])

    def _logits(self, model: Any, inputs: dict[str, Any], positions: Tensor) -> Tensor:
        kept = {"logits_to_keep": positions} if self._keeps_logits else {}
        logits: Tensor = model(**inputs, **kept).logits
        return logits if kept else logits[:, positions]

    def _packed_losses(self, model: Any, batch: Batch, features: dict[str, Any]) -> Losses:
        assert batch.labels is not None, "made by `training`"
        packed, learned = pack(model, batch.inputs), batch.labels != IGNORED
        learned[:, 0] = False
        places = packed.places(learned)
        with packed_rows(model, packed.owners):
            logits = self._logits(model, {**packed.inputs, **features}, places)
        targets = batch.labels[packed.kept][places + 1]
        each = token_losses(logits.transpose(0, 1), targets[:, None]).sums
        sums = each.new_zeros(len(batch)).index_add(0, packed.owners[places], each)
        return Losses(sums, learned.sum(1))

    def with_features(self, model: Any, batch: Batch) -> Batch:
        """See `Reader.with_features`."""
        if not self._takes_features:
            raise self._refusal("features")
        if any(name.endswith("_videos") for name in batch.inputs):
            raise ReaderError(
                "`batch` must hold no videos, whose features are not stored, but a row beside "
                f"{batch.names[0]} shows one. Leave such rows out."
            )
        if not any(name.startswith("pixel_") for name in batch.inputs):
            return batch
        return batch.reading(make_features(model, batch.inputs))

    def picture_tokens(self, batch: Batch) -> Tensor:
        """See `Reader.picture_tokens`."""
        token = image_token(self.config)
        if not self._takes_features or token is None:
            raise self._refusal("features")
        return batch.inputs[IDS].eq(token).sum(1)

    @cached_property
    def sees_alone(self) -> bool:
        """See `Reader.sees_alone`."""
        return COMPANY in self._of_two_pictures

    def generate(self, model: Any, batch: Batch, writing: Writing) -> Tensor:
        """See `Reader.generate`."""
        tokens, bare = self._written(model, batch.inputs, writing), rows_without_pictures(batch)
        if bare is None:
            return tokens
        without = self._written(model, text_inputs(batch.inputs), writing)
        chosen = [own if alone else shown for alone, own, shown in zip(bare, without, tokens, strict=True)]
        return pad_sequence(chosen, batch_first=True, padding_value=self.processor.tokenizer.pad_token_id)

    def _written(self, model: Any, inputs: dict[str, Tensor], writing: Writing) -> Tensor:
        prompts = inputs[IDS]
        tokens: Tensor = model.generate(
            **inputs,
            **writing.options,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            eos_token_id=self.stop_ids,
        )
        length = prompts.shape[1]
        # Models that embed the prompt themselves return what follows it alone.
        echoed = tokens.shape[1] >= length and torch.equal(tokens[:, :length], prompts)
        return tokens[:, length:] if echoed else tokens

    def _encoded(
        self,
        texts: Sequence[str],
        pictures: Sequence[Any] | None,
        films: Sequence[Film] = (),
        **options: Any,
    ) -> Encoded:
        """Call the processor, and take the padding off again."""
        try:
            made = processed(self.processor, pictures, texts, films, **options)
        except ValueError as error:
            raise ReaderError(
                f"The processor of {self.title} refuses a batch of such rows: {error}"
            ) from error
        if len(made[IDS]) != len(texts):
            raise ReaderError(
                f"The processor of {self.title} must make a sequence of every row, but makes {len(made[IDS])} of "
                f"{len(texts)}. Newer releases of transformers may do better; or train rows with and without pictures "
                "apart."
            )
        made.pop("labels", None)
        ids, mask = made[IDS], made[MASK].bool()
        # A processor with a second tokenizer names what comes of it by a first word: `qformer_input_ids`.
        others = tuple(name.removesuffix(IDS) for name in made if name.endswith(f"_{IDS}"))
        along = [
            name
            for name, value in made.items()
            if torch.is_tensor(value) and value.shape[:2] == ids.shape and not name.startswith(others)
        ]
        sequences = [{name: made[name][row][mask[row]] for name in along} for row in range(len(ids))]
        media = {name: value for name, value in made.items() if name not in along}
        return Encoded(sequences, media, [[len(row[IDS])] for row in sequences])

    def _grown(
        self, prompt: dict[str, Tensor], gaps: Sequence[int], pieces: Sequence[Piece]
    ) -> dict[str, Tensor]:
        """The tensors of a row with the answers in their gaps, and its labels."""
        whole: dict[str, list[Tensor]] = {name: [] for name in (*prompt, "labels")}
        for start, stop, piece in zip([0, *gaps], gaps, pieces, strict=False):
            ids = torch.tensor(piece.ids, dtype=torch.long)
            for name, value in prompt.items():
                whole[name] += [value[start:stop], self._of_answer(name, ids, value[:stop])]
            whole["labels"] += [
                torch.full((stop - start,), IGNORED),
                ids if piece.learned else torch.full_like(ids, IGNORED),
            ]
        return {name: torch.cat(parts) for name, parts in whole.items()}

    def _of_answer(self, name: str, ids: Tensor, before: Tensor) -> Tensor:
        """What a tensor along the sequence holds at an answer."""
        if before.dim() > 1:
            # What each token looks at: an answer looks at what the end of its prompt does.
            return before[-1:].expand(len(ids), *before.shape[1:])
        filled = ids if name == IDS else torch.full_like(ids, 1 if name == MASK else self._filling(name))
        return filled.to(before.dtype)

    def _padded(self, rows: Sequence[dict[str, Tensor]], side: Side) -> dict[str, Tensor]:
        fill = {IDS: self.processor.tokenizer.pad_token_id, "labels": IGNORED}
        return {
            name: pad_sequence(
                [row[name] for row in rows],
                batch_first=True,
                padding_value=fill.get(name, 0),
                padding_side=side,
            )
            for name in rows[0]
        }

    def _ended(self, text: str) -> str:
        """A text with its end, where it has none."""
        stopped = text.endswith(tuple(self._stops))
        return text if stopped else text + str(self.processor.tokenizer.eos_token)


def image_token(config: Any) -> int | None:
    """The token that stands for a piece of a picture, by the names that configs have for it, or None."""
    values = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    return next((int(value) for value in values if value is not None), None)


def _is_of_videos(name: str) -> bool:
    """Whether a tensor that a processor makes has an entry, or several, for each video."""
    return "video" in name or name == "second_per_grid_ts"


def _keeps_logits(config: Any) -> bool:
    """Whether a model can be told which places need logits; some hand it on to their language model."""
    name, text = "logits_to_keep", config.get_text_config(decoder=True)
    own = inspect.signature(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].forward).parameters
    if name in own:
        return True
    language = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(text), None)
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
    return language is not None and hands_on and name in inspect.signature(language.forward).parameters
