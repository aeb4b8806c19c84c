"""One few-shot run: features once, then every head on every draw, scored, tracked and saved."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from weft.core.cache import ContextPrompts, CoOp, FewShotHead, Provenance, XMAdapter, make_head
from weft.core.cache.model import Selection, TestSelectionWarning
from weft.eval.metrics import calibration, harmonic_mean
from weft.eval.tracking import open_run
from weft.train.errors import RunError
from weft.train.few_shot.comparison import Cell, FewShotComparison
from weft.train.few_shot.draws import Records, draw, load_records
from weft.train.few_shot.features import Extractor, load_encoder
from weft.train.few_shot.recipe import FewShotRecipe, config_of, label_of
from weft.train.few_shot.votes import write_votes
from weft.train.progress import Progress
from weft.train.result import RESULT, write_json
from weft.train.tracked import tracking_store

_PAPER = (
    "Epochs and hyper-parameters were chosen on the test set (selection: paper), as in the papers' code: these "
    "accuracies are no estimate for new images."
)


def execute_few_shot(
    recipe: FewShotRecipe, *, overwrite: bool = False, progress: Progress | None = None
) -> FewShotComparison:
    """Run a few-shot recipe.

    Args:
        recipe: The recipe.
        overwrite: Remove an earlier run of the same name first.
        progress: Where to show progress; nowhere by default.

    Returns:
        All scores; the folder holds `recipe.yaml`, `heads/`, `votes/`, `result.json`, `table.txt`,
        `cells.csv` and `accuracy.png`.

    Raises:
        RunError: The run cannot start.
        WeftError: Data, encoder or features break a rule.
    """
    progress = progress or Progress()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    records = load_records(recipe)
    draws = {(shots, seed): draw(records, shots, seed) for shots in recipe.shots for seed in recipe.seeds}
    encoder, transform = load_encoder(recipe.encoder)
    _prepare_folder(recipe, overwrite)
    extractor = Extractor(encoder, transform, Path(recipe.output) / "features", recipe.batch_size, progress)
    bench = Bench(recipe, records, extractor)
    cells: list[Cell] = []
    with _tracked(recipe) as run:
        with progress.bar(f"heads of {recipe.title}", len(draws) * len(recipe.heads)) as advance:
            for (shots, seed), (train, validation) in draws.items():
                drawn = bench.features_of(train, validation)
                for head in recipe.heads:
                    cells.append(bench.cell(head, shots, seed, drawn))
                    advance(len(cells))
                    if run is not None:
                        _log_cell(run, cells[-1])
        notes = (_PAPER,) if recipe.selection == "paper" else ()
        comparison = FewShotComparison(recipe.title, recipe.folder, cells, notes)
        _write(comparison)
        write_votes(recipe, records, extractor, draws)
        if run is not None:
            _log_comparison(run, comparison)
    return comparison


@dataclass(frozen=True)
class Drawn:
    """Features of one draw.

    Attributes:
        views: Of training images, shape (views, samples, width).
        labels: Shape (samples,).
        chooser: Features and labels that choose hyper-parameters, or None.
        fingerprint: Of the training records.
    """

    views: Tensor
    labels: Tensor
    chooser: tuple[Tensor, Tensor] | None
    fingerprint: str


class Bench:
    """Fits and scores heads on draws, with the features of a recipe.

    Args:
        recipe: The recipe.
        records: Its splits.
        extractor: Makes features.
    """

    def __init__(self, recipe: FewShotRecipe, records: Records, extractor: Extractor) -> None:
        self.recipe, self.records, self.extractor = recipe, records, extractor
        encoder = extractor.encoder
        self.logit_scale = recipe.encoder.logit_scale or encoder.logit_scale
        self.class_weights = encoder.class_weights(
            records.class_names, recipe.templates, allow_duplicates=recipe.data.allow_duplicate_names
        ).cpu()
        if recipe.encoder.width not in (None, self.class_weights.shape[1]):
            raise RunError(
                f"`encoder.width` must be that of {recipe.encoder.name!r} ({self.class_weights.shape[1]}), but is "
                f"{recipe.encoder.width}. Correct it, or name another encoder."
            )
        self.tests = {name: self._test(name, split) for name, split in records.test.items()}
        self._stages: dict[tuple[int, int], Tensor] = {}

    def features_of(self, train: Any, validation: Any) -> Drawn:
        """Features of the records of one draw."""
        views = self.extractor.views(train, self.recipe.views, "training images")
        return Drawn(views, _labels(train), self._chooser(validation), train.fingerprint())

    def cell(self, head: dict[str, Any], shots: int, seed: int, drawn: Drawn) -> Cell:
        """Fit one head on one draw, score it on every test set and save it.

        Args:
            head: The head as the recipe writes it.
            shots: Images per class.
            seed: Seed of the draw and of the head.
            drawn: Features of the draw.
        """
        recipe, label = self.recipe, label_of(head)
        fitted = self._make(head, drawn, shots, seed)
        started = time.perf_counter()
        self._fit(fitted, drawn, seed)
        seconds = time.perf_counter() - started
        error = None
        if drawn.chooser is not None:
            fitted.calibrate(*drawn.chooser)
            error = self._calibration_error(fitted)
        provenance = Provenance(
            self.extractor.encoder.fingerprint(), self.extractor.transform.fingerprint(), drawn.fingerprint
        )
        names = self.records.class_names[: self.records.num_base]
        fitted.save(
            recipe.folder / "heads" / f"{label}-K{shots}-seed{seed}", provenance=provenance, class_names=names
        )
        return Cell(
            head=label,
            shots=shots,
            seed=seed,
            accuracies=self._accuracies(fitted),
            calibration_error=error,
            selected=dict(fitted.selected),
            trainable=fitted.config.trainable_parameters(
                num_classes=fitted.num_classes, num_samples=len(drawn.labels), width=fitted.width
            ),
            seconds=seconds,
        )

    def _make(self, head: dict[str, Any], drawn: Drawn, shots: int, seed: int) -> FewShotHead:
        config = config_of(head)
        if "logit_scale" not in config.model_fields_set:
            config = config.model_copy(update={"logit_scale": self.logit_scale})
        if hasattr(config, "context_tokens"):
            return self._prompted(config)
        made = make_head(self.class_weights[: self.records.num_base], config)
        if isinstance(made, XMAdapter) and self.recipe.prompt_stage is not None:
            if (shots, seed) not in self._stages:
                stage = self._prompted(config_of(self.recipe.prompt_stage))
                self._fit(stage, drawn, seed)
                assert isinstance(stage, CoOp)
                self._stages[shots, seed] = stage.class_features()
            made.use_prompts(self._stages[shots, seed])
        return made

    def _prompted(self, config: Any) -> CoOp:
        prompts = ContextPrompts(
            self.extractor.encoder,
            self.records.class_names[: self.records.num_base],
            context_tokens=config.context_tokens,
            allow_duplicates=self.recipe.data.allow_duplicate_names,
        )
        given = config.model_fields_set
        update: dict[str, Any] = {} if "context_width" in given else {"context_width": prompts.width}
        update |= {} if "logit_scale" in given else {"logit_scale": self.logit_scale}
        made = make_head(self.class_weights[: self.records.num_base], config.model_copy(update=update))
        assert isinstance(made, CoOp)
        made.use_prompts(prompts)
        return made

    def _fit(self, head: FewShotHead, drawn: Drawn, seed: int) -> None:
        with warnings.catch_warnings():
            # Said once, under the table and in the tracked run, instead of once for every head.
            warnings.simplefilter("ignore", TestSelectionWarning)
            selected_on: Selection = "paper" if self.recipe.selection == "paper" else "validation"
            head.fit(drawn.views, drawn.labels, drawn.chooser, selected_on=selected_on, seed=seed)

    def _chooser(self, validation: Any) -> tuple[Tensor, Tensor] | None:
        if self.recipe.selection == "none":
            return None
        if self.recipe.selection == "paper":
            return next(iter(self.tests.values()))[:2]
        return self.extractor.plain(validation, "validation images"), _labels(validation)

    def _test(self, name: str, split: Any) -> tuple[Tensor, Tensor, list[int] | None]:
        """Features, labels and, for a test set of fewer classes, their numbers among all."""
        features, labels = self.extractor.plain(split, f"{name} images"), _labels(split)
        if name not in self.recipe.shifted:
            return features, labels, None
        # Variants with fewer classes count them anew and keep the place among all of them.
        own = torch.tensor([record.extra.get("imagenet_label", record.label) for record in split])
        classes = sorted({int(label) for label in own})
        if classes[-1] >= len(self.records.class_names):
            raise RunError(
                f"`shifted.{name}` must hold classes of the data set, but holds label {classes[-1]} of "
                f"{len(self.records.class_names)} classes. Choose a test set of the same classes."
            )
        return features, torch.tensor([classes.index(int(label)) for label in own]), classes

    def _accuracies(self, head: FewShotHead) -> dict[str, float]:
        found = {}
        for name, (features, labels, classes) in self.tests.items():
            with torch.no_grad():
                if name == "new" and self.recipe.protocol == "base_to_new":
                    logits = head.transfer_logits(features, self.class_weights[self.records.num_base :])
                else:
                    logits = head.logits(features, classes)
            found[name] = 100 * float((logits.argmax(1) == labels).double().mean())
        if self.recipe.protocol == "base_to_new":
            found["harmonic mean"] = harmonic_mean(found["base"], found["new"])
        return found

    def _calibration_error(self, head: FewShotHead) -> float:
        features, labels, _ = next(iter(self.tests.values()))
        with torch.no_grad():
            best = head.probabilities(features).max(1)
        confidences = dict(enumerate(best.values.double().clamp(0, 1).tolist()))
        correct = dict(enumerate((best.indices == labels).tolist()))
        return calibration(confidences, correct).value


def _labels(records: Any) -> Tensor:
    return torch.tensor([record.label for record in records])


def _prepare_folder(recipe: FewShotRecipe, overwrite: bool) -> None:
    folder = recipe.folder
    if folder.exists() and not overwrite:
        raise RunError(
            f"`name` must be new in {recipe.output!r}, but {folder} exists. Use --overwrite to start again, or "
            "name=... for another run."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    values = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / "recipe.yaml").write_text(values, encoding="utf-8")


def _write(comparison: FewShotComparison) -> None:
    folder = comparison.folder
    write_json(folder / RESULT, comparison.to_dict())
    (folder / "table.txt").write_text(comparison.text(), encoding="utf-8")
    (folder / "cells.csv").write_text(comparison.to_csv(), encoding="utf-8")
    comparison.plot(folder / "accuracy.png")


@contextmanager
def _tracked(recipe: FewShotRecipe) -> Iterator[Any]:
    if not recipe.tracking.enabled:
        yield None
        return
    params = {
        "encoder": recipe.encoder.name,
        "data": recipe.data.name,
        "heads": ",".join(label_of(head) for head in recipe.heads),
        "shots": ",".join(map(str, recipe.shots)),
        "seeds": ",".join(map(str, recipe.seeds)),
        "selection": recipe.selection,
        "protocol": recipe.protocol,
    }
    with open_run(
        store=tracking_store(recipe),  # type: ignore[arg-type]  # reads `tracking` and `output` alone
        experiment=recipe.tracking.experiment,
        name=recipe.name,
        params=params,
        tags={"weft.selection": recipe.selection},
    ) as run:
        run.log_text((recipe.folder / "recipe.yaml").read_text(encoding="utf-8"), "recipe.yaml")
        yield run


def _log_cell(run: Any, cell: Cell) -> None:
    values = {f"{test}/{cell.head}/seed {cell.seed}": accuracy for test, accuracy in cell.accuracies.items()}
    run.log_metrics(values, step=cell.shots)


def _log_comparison(run: Any, comparison: FewShotComparison) -> None:
    for test in comparison.tests:
        for head in comparison.heads:
            for shots in comparison.shots:
                mean, spread = comparison.over_seeds(head, shots, test)
                values = {f"{test}/{head}/mean": mean}
                values |= {} if spread is None else {f"{test}/{head}/std": spread}
                run.log_metrics(values, step=shots)
    for name in ("table.txt", "cells.csv", "accuracy.png", RESULT):
        run.log_artifacts(comparison.folder / name)
    if (comparison.folder / "votes").is_dir():
        run.log_artifacts(comparison.folder / "votes", "votes")
