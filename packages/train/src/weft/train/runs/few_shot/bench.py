"""Heads of a few-shot recipe, fitted on draws and scored on every test set of one data set."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.core.few_shot import ContextPrompts, CoOp, FewShotHead, ImageHead, Provenance, XMAdapter, make_head
from weft.core.few_shot.selection import SelectedOn, TestSelectionWarning
from weft.eval.metrics import calibration, harmonic_mean
from weft.train.backbones.encoders import load_encoder
from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.recipe.few_shot import FewShotRecipe, config_of, label_of
from weft.train.runs.few_shot.comparison import Cell
from weft.train.runs.few_shot.draws import Records, class_names_of, read_class_texts
from weft.train.runs.few_shot.features import FEATURES, Extractor
from weft.train.runs.few_shot.inputs import ClassTexts, Drawn, Seen, Transfer


class Bench:
    """Fits heads on the draws from the one data set of a recipe, scores them and saves them in a folder."""

    def __init__(self, recipe: FewShotRecipe, records: Records, extractor: Extractor, folder: Path) -> None:
        self.recipe, self.records, self.extractor, self.folder = recipe, records, extractor, folder
        encoder = extractor.encoder
        self.logit_scale = recipe.encoder.logit_scale or encoder.logit_scale
        classes = ClassTexts(
            records.class_names,
            recipe.templates,
            read_class_texts(recipe.class_texts),
            recipe.data.allow_duplicate_names,
        )
        self.class_weights = classes.weights(encoder)
        self.classes = classes.of(slice(records.num_base))
        if recipe.encoder.width not in (None, self.class_weights.shape[1]):
            raise RunError(
                f"`encoder.width` must be that of {recipe.encoder.name!r} ({self.class_weights.shape[1]}), but is "
                f"{recipe.encoder.width}. Correct it, or name another encoder."
            )
        self.tests = {name: self._test(name, split) for name, split in records.test.items()}
        self.transfers = {name: self._transfer(name, split) for name, split in records.transfer.items()}
        if recipe.protocol == "base_to_new":
            seen, labels, _ = self.tests.pop("new")
            new = slice(records.num_base, None)
            self.transfers["new"] = Transfer(seen, labels, classes.of(new), self.class_weights[new])
        self._stages: dict[tuple[int, int], tuple[CoOp, float]] = {}

    def features_of(self, train: Any, validation: Any) -> Drawn:
        """Features of the records of one draw."""
        views = Seen(
            self.extractor.views(train, self.recipe.views, "training images"),
            self.extractor.images(train, self.recipe.views),
        )
        return Drawn(views, _labels(train), self._chooser(validation), train.fingerprint())

    def cell(self, head: dict[str, Any], shots: int, seed: int, drawn: Drawn) -> Cell:
        """Fit one head, as the recipe writes it, on one draw, score it on every test set and save it."""
        label = label_of(head)
        fitted, seconds = self._fitted(head, drawn, shots, seed)
        if drawn.chooser is not None:
            seen, labels = drawn.chooser
            fitted.calibrate(seen.by(fitted), labels)
        provenance = self.provenance(drawn.fingerprint)
        fitted.save(self.place(label, shots, seed), provenance=provenance, class_names=self.classes.names)
        return replace(self.scored(fitted, label, shots, seed), seconds=seconds)

    def place(self, label: str, shots: int, seed: int) -> Path:
        """Where a head is."""
        return self.folder / f"{label}-K{shots}-seed{seed}"

    def provenance(self, split: str) -> Provenance:
        """What a head is made from, given the fingerprint of its training records."""
        encoder, transform = self.extractor.encoder, self.extractor.transform
        return Provenance(encoder.fingerprint(), transform.fingerprint(), split)

    def equipped(self, head: FewShotHead) -> FewShotHead:
        """A head with the encoder that reads its prompts or its images, if it has some."""
        if isinstance(head, CoOp):
            head.use_prompts(self._prompts(head.config, self.classes))
        if isinstance(head, ImageHead):
            head.use_encoder(self.classes.adaptable(self.extractor.encoder))
        return head

    def scored(self, head: FewShotHead, label: str, shots: int, seed: int) -> Cell:
        """A fitted head on every test set; `seconds` are 0."""
        accuracies, error = self._test_scores(head)
        return Cell(
            label,
            shots,
            seed,
            accuracies,
            calibration_error=None if self.recipe.selection == "none" else error,
            selected=dict(head.selected),
            trainable=_trainable(head),
            seconds=0.0,
            at_bounds=dict(head.selection.at_bounds),
        )

    def _fitted(self, head: dict[str, Any], drawn: Drawn, shots: int, seed: int) -> tuple[FewShotHead, float]:
        """The fitted head, and the seconds it took; what `prompt_stage` fits is not fitted again as a head."""
        config, stage = config_of(head), self.recipe.prompt_stage
        if stage is not None and config == config_of(stage):
            return self._stage(drawn, shots, seed)
        made = self._made(config)
        if isinstance(made, XMAdapter) and stage is not None:
            made.use_prompts(self._stage(drawn, shots, seed)[0].class_features())
        return made, self._fit(made, drawn, seed)

    def _stage(self, drawn: Drawn, shots: int, seed: int) -> tuple[CoOp, float]:
        if (shots, seed) not in self._stages:
            made = self._made(config_of(self.recipe.prompt_stage or {}))
            assert isinstance(made, CoOp)
            self._stages[shots, seed] = made, self._fit(made, drawn, seed)
        return self._stages[shots, seed]

    def _made(self, config: Any) -> FewShotHead:
        if "logit_scale" not in config.model_fields_set:
            config = config.model_copy(update={"logit_scale": self.logit_scale})
        if "context_width" in type(config).model_fields and "context_width" not in config.model_fields_set:
            width = self._prompts(config, self.classes).width
            config = config.model_copy(update={"context_width": width})
        return self.equipped(make_head(self.class_weights[: self.records.num_base], config))

    def _prompts(self, config: Any, classes: ClassTexts) -> ContextPrompts:
        return ContextPrompts(
            self.extractor.encoder,
            classes.names,
            context_tokens=config.context_tokens,
            allow_duplicates=classes.allow_duplicates,
        )

    def _fit(self, head: FewShotHead, drawn: Drawn, seed: int) -> float:
        """Fit, and give the seconds it took."""
        started = time.perf_counter()
        with warnings.catch_warnings():
            # Said once, under the table and in the tracked run, instead of once for every head.
            warnings.simplefilter("ignore", TestSelectionWarning)
            selected_on: SelectedOn = "paper" if self.recipe.selection == "paper" else "validation"
            chooser = None if drawn.chooser is None else (drawn.chooser[0].by(head), drawn.chooser[1])
            head.fit(drawn.views.by(head), drawn.labels, chooser, selected_on=selected_on, seed=seed)
        return time.perf_counter() - started

    def _chooser(self, validation: Any) -> tuple[Seen, Tensor] | None:
        if self.recipe.selection == "none":
            return None
        if self.recipe.selection == "paper":
            return next(iter(self.tests.values()))[:2]
        return self._seen(validation, "validation images"), _labels(validation)

    def _seen(self, records: Any, title: str) -> Seen:
        return Seen(self.extractor.plain(records, title), self.extractor.images(records))

    def _test(self, name: str, split: Any) -> tuple[Seen, Tensor, list[int] | None]:
        """Images, labels and, for a test set of fewer classes, their numbers among all."""
        seen, labels = self._seen(split, f"{name} images"), _labels(split)
        if name not in self.recipe.shifted:
            return seen, labels, None
        # Variants with fewer classes renumber them and keep the place among all of them.
        own = torch.tensor([record.extra.get("imagenet_label", record.label) for record in split])
        classes = sorted({int(label) for label in own})
        if classes[-1] >= len(self.records.class_names):
            raise RunError(
                f"`shifted.{name}` must hold classes of the data set, but holds label {classes[-1]} of "
                f"{len(self.records.class_names)} classes. Choose a test set of the same classes."
            )
        return seen, torch.tensor([classes.index(int(label)) for label in own]), classes

    def _transfer(self, name: str, split: Any) -> Transfer:
        section = self.recipe.transfer[name]
        classes = ClassTexts(
            class_names_of(split, section),
            self.recipe.templates if section.templates is None else section.templates,
            read_class_texts(section.class_texts),
            section.allow_duplicate_names,
        )
        weights = classes.weights(self.extractor.encoder)
        return Transfer(self._seen(split, f"{name} images"), _labels(split), classes, weights)

    def _test_scores(self, head: FewShotHead) -> tuple[dict[str, float], float]:
        """Accuracy on every test set, and the calibration error on the first."""
        with torch.no_grad():
            logits = {name: head.logits(seen.by(head), only) for name, (seen, _, only) in self.tests.items()}
            found = {name: _accuracy(logits[name], labels) for name, (_, labels, _) in self.tests.items()}
            for name, other in self.transfers.items():
                found[name] = _accuracy(self._transferred(head, other), other.labels)
        if self.recipe.protocol == "base_to_new":
            found["harmonic mean"] = harmonic_mean(found["base"], found["new"])
        first = next(iter(self.tests))
        return found, _calibration_error(logits[first] / head.temperature, self.tests[first][1])

    def _transferred(self, head: FewShotHead, other: Transfer) -> Tensor:
        """Logits of classes that the head knows by their names alone."""
        read, weights = other.seen.by(head), other.class_weights
        if isinstance(head, CoOp):
            return head.for_classes(weights, self._prompts(head.config, other.classes)).logits(read)
        if isinstance(head, ImageHead):
            return head.for_classes(weights, other.classes.adaptable(self.extractor.encoder)).logits(read)
        return head.transfer_logits(read, weights)


def open_benches(
    recipe: FewShotRecipe, records: Mapping[str, Records], folder: Path, progress: Progress
) -> dict[str, Bench]:
    """A bench for every data set of a recipe, by its name, all with one encoder.

    Raises:
        RunError: As `load_encoder`; or features are of another width than the recipe says.
    """
    encoder, transform = load_encoder(recipe.encoder)
    extractor = Extractor(encoder, transform, Path(recipe.output) / FEATURES, recipe.batch_size, progress)
    return {
        name: Bench(part, records[name], extractor, folder / "heads" / name)
        for name, part in recipe.parts().items()
    }


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * float((logits.argmax(1) == labels).double().mean())


def _calibration_error(logits: Tensor, labels: Tensor) -> float:
    best = logits.softmax(-1).max(1)
    confidences = dict(enumerate(best.values.double().clamp(0, 1).tolist()))
    correct = dict(enumerate((best.indices == labels).tolist()))
    return calibration(confidences, correct).value


def _trainable(head: FewShotHead) -> int:
    """Trained parameters; those within the encoder are counted where they are."""
    if isinstance(head, ImageHead):
        return sum(value.numel() for value in head.parameters())
    return int(
        head.config.trainable_parameters(
            num_classes=head.num_classes, num_samples=head.num_samples, width=head.width
        )
    )


def _labels(records: Any) -> Tensor:
    return torch.tensor([record.label for record in records])
