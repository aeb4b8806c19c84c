"""What a few-shot run would do, found out without its encoder: counts, draws, memory, the first draw as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.data import dataset_spec
from weft.data.records.contact_sheet import contact_sheet
from weft.train.backbones.encoders import width_of
from weft.train.output.first_batch import SHOWN, counted, picture_path, save_picture
from weft.train.output.folders import require_new
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.published import published_of, shown
from weft.train.runs.few_shot.draws import Records, check_images, draw, load_records
from weft.train.runs.few_shot.plan import FewShotPlan, plan_parts

_BYTES = 4


@dataclass(frozen=True)
class Trial:
    """One data set of a few-shot run.

    Attributes:
        name: Its name.
        records: Split or test set to number of records.
        official: The same where the data set states its size officially.
        largest: Training images of the largest draw.
        features: Bytes of the features of the largest draw and of all test sets, in 32 bits; None where their width is
            not known.
        shown: Records of the first draw, and the prompt of each.
    """

    name: str
    records: Mapping[str, int]
    official: Mapping[str, int]
    largest: int
    features: int | None
    shown: tuple[tuple[Any, str], ...]

    def __str__(self) -> str:
        counts = [f"{split} {counted(n, self.official.get(split))}" for split, n in self.records.items()]
        return f"{self.name}: {', '.join(counts)}; draws of at most {self.largest:,} images"


@dataclass(frozen=True)
class FewShotDryRun:
    """What a few-shot run would do.

    Attributes:
        plan: Trained parameters of every head; None where the width of the encoder is not known here.
        encoder: The encoder, which is not opened.
        trials: Its data sets.
        draws: Number of draws of each.
        fits: Heads that are fitted, over all draws and data sets.
        texts: Prompt of each image of the picture.
        picture: Where the first images of the first draw are drawn.
        published: What others printed for these heads, one line each.
    """

    plan: FewShotPlan | None
    encoder: str
    trials: tuple[Trial, ...]
    draws: int
    fits: int
    texts: tuple[str, ...]
    picture: Path
    published: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = [trial.features for trial in self.trials if trial.features is not None]
        size = f"{sum(known) / 2**20:.1f} MiB of features" if known else "features of unknown width"
        lines = [
            "trained parameters are not counted: encoder.width is not stated"
            if self.plan is None
            else str(self.plan),
            "",
            f"fits       {self.fits:,} heads, on {self.draws} draws of each data set",
            f"memory     {size}; encoder {self.encoder}, not opened here",
            "data",
            *(f"  {trial}" for trial in self.trials),
            *(["published", *(f"  {line}" for line in self.published)] if self.published else []),
            f"first draw, drawn in {self.picture}",
            *(f"  {text}" for text in self.texts),
        ]
        return "\n".join(lines)


def dry_run_few_shot(
    recipe: FewShotRecipe, picture: Path | None = None, *, again: bool = False
) -> FewShotDryRun:
    """Check what a few-shot run needs except its encoder, make every draw, and say what the run would do.

    Classes are counted in the data, and the width of the features is read from the encoder's configuration, where the
    recipe does not state them.

    Args:
        recipe: The recipe.
        picture: Where the first draw is drawn; by default `NAME-first-batch.png` in the recipe's `output`.
        again: Whether the run may have begun already, as with `--resume` and `--overwrite`.

    Raises:
        RunError: The data do not fit, or there is a run of this name.
        WeftDataError: Files are missing or malformed.
    """
    if not again:
        require_new(recipe.folder, resumes=False)
    published = published_of(recipe)
    width = width_of(recipe.encoder)
    encoder = recipe.encoder.model_copy(update={"width": width})
    parts = {name: part.model_copy(update={"encoder": encoder}) for name, part in recipe.parts().items()}
    records = {name: load_records(part) for name, part in parts.items()}
    parts = {name: _counted(part, len(records[name].class_names)) for name, part in parts.items()}
    planned = None if width is None else plan_parts(parts)
    trials = tuple(
        _try(name or part.data.name, part, records[name], SHOWN // len(parts)) for name, part in parts.items()
    )
    pairs = [pair for trial in trials for pair in trial.shown]
    path = picture or picture_path(recipe)
    texts = tuple(text for _, text in pairs)
    save_picture(contact_sheet([record for record, _ in pairs], texts=texts), path)
    draws = len(recipe.shots) * len(recipe.seeds)
    return FewShotDryRun(
        plan=planned,
        encoder=recipe.encoder.name,
        trials=trials,
        draws=draws,
        fits=draws * len(recipe.heads) * len(trials),
        texts=texts,
        picture=path,
        published=tuple(shown(published)),
    )


def _counted(recipe: FewShotRecipe, classes: int) -> FewShotRecipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"num_classes": classes})})


def _try(name: str, recipe: FewShotRecipe, records: Records, shown: int) -> Trial:
    drawn = [draw(records, shots, seed) for shots in recipe.shots for seed in recipe.seeds]
    check_images(records, drawn)
    largest = max(len(train) for train, _ in drawn)
    tests = {**records.test, **records.transfer}
    held = recipe.views.count * largest + sum(map(len, tests.values()))
    parts = {"train": records.train, "validation": records.validation, **tests}
    template = recipe.templates[0]
    first = drawn[0][0][:shown]
    return Trial(
        name=name,
        records={part: len(found) for part, found in parts.items() if found is not None},
        official=_official(recipe),
        largest=largest,
        features=None if recipe.encoder.width is None else _BYTES * recipe.encoder.width * held,
        shown=tuple((record, template.format(records.class_names[record.label])) for record in first),
    )


def _official(recipe: FewShotRecipe) -> dict[str, int]:
    """Official sizes of the splits that are taken whole."""
    data = recipe.data
    if recipe.protocol != "all" or data.test is None:
        return {}
    stated = dataset_spec(data.name).expected
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {role: stated[split] for role, split in splits.items() if split is not None and split in stated}
