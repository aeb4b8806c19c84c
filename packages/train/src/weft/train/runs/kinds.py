"""The kinds of runs, each made by its kind of recipe: what the command line can ask of any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.output.result import Result
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.loading import AnyRecipe
from weft.train.recipe.published import published_of, scored_alike, shown
from weft.train.recipe.training import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """Trains a method on the tasks of its recipe.

    Args:
        recipe: The recipe.
    """

    recipe: Recipe

    def plan(self) -> Any:
        """What would be trained, counted without weights: to be printed, or plain data by `to_dict()`."""
        from weft.core import plan
        from weft.train.backbones.loading import planned_model

        return plan(planned_model(self.recipe.backbone), self.recipe.method, list(self.recipe.tasks))

    def dry_run(self, picture: Path | None, *, again: bool = False) -> object:
        """Check everything and say what the run would do; see `weft.train.runs.dry_run`."""
        from weft.train.runs.dry_run import dry_run

        return dry_run(self.recipe, picture, again=again)

    def execute(self, progress: Progress, *, resume: bool, overwrite: bool, auto_resume: bool) -> str:
        """Run it, as `weft.train.runs.run.execute` does, and give what a terminal shows of the result."""
        from weft.train.runs.run import execute

        published = shown(published_of(self.recipe))
        result = execute(
            self.recipe, resume=resume, overwrite=overwrite, auto_resume=auto_resume, progress=progress
        )
        if published:
            published += scored_alike(self.recipe, result.reports)
        return _result_text(result, published)

    @staticmethod
    def rescore(folder: Path, progress: Progress) -> str:
        """Score a finished run again, as `weft.train.runs.rescore` does."""
        from weft.train.runs.rescore import rescore

        return _result_text(rescore(folder, progress=progress))


@dataclass(frozen=True)
class FewShotRun:
    """Fits heads on a frozen encoder.

    Args:
        recipe: The recipe.
    """

    recipe: FewShotRecipe

    def plan(self) -> Any:
        """As `TrainingRun.plan`, for every head."""
        from weft.train.runs.few_shot.plan import plan_few_shot

        return plan_few_shot(self.recipe)

    def dry_run(self, picture: Path | None, *, again: bool = False) -> object:
        """As `TrainingRun.dry_run`; the encoder stays closed."""
        from weft.train.runs.few_shot.dry_run import dry_run_few_shot

        return dry_run_few_shot(self.recipe, picture, again=again)

    def execute(self, progress: Progress, *, resume: bool, overwrite: bool, auto_resume: bool) -> str:
        """Run it, and give its table.

        Raises:
            RunError: `resume` or `auto_resume` is asked for: heads take seconds, and features are kept anyway.
        """
        if resume or auto_resume:
            raise RunError(
                "`--resume` is for runs with checkpoints, but this few-shot recipe has none. Use --overwrite; features "
                "that were extracted are found again."
            )
        from weft.train.runs.few_shot.run import execute_few_shot

        published = shown(published_of(self.recipe))
        found = execute_few_shot(self.recipe, overwrite=overwrite, progress=progress)
        end = f"Plot: {found.folder / 'accuracy.png'}. Heads: {found.folder / 'heads'}\n"
        return "".join([found.text(), *(f"Published: {line}\n" for line in published), end])

    @staticmethod
    def rescore(folder: Path, progress: Progress) -> str:
        """Score the saved heads of a finished run again, and give their table."""
        from weft.train.runs.few_shot.rescore import rescore_few_shot

        return rescore_few_shot(folder, progress=progress).text()


AnyRun = TrainingRun | FewShotRun


def run_of(recipe: AnyRecipe) -> AnyRun:
    """The run that a recipe describes."""
    return FewShotRun(recipe) if isinstance(recipe, FewShotRecipe) else TrainingRun(recipe)


def rescore_any(folder: Path, progress: Progress) -> str:
    """Score a finished run of any kind again, and give what a terminal shows of it.

    Args:
        folder: Folder of the run.
        progress: Where to show progress.

    Raises:
        RunError: If the folder is not that of a finished run.
    """
    kind = FewShotRun if (folder / "heads").is_dir() else TrainingRun
    return kind.rescore(folder, progress)


def _result_text(result: Result, published: Sequence[str] = ()) -> str:
    """A table of the scores, the counts, and what others printed for the method."""
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "metric", "score", "records", title=str(result.folder))
    for name, report in result.reports.items():
        metric, records = f"{report['metric']}: {report['headline']}", f"{report['n']:,}"
        table.add_row(name, metric, f"{result.scores[name]:.2f}", records)
    if len(result.reports) > 1:
        table.add_row("average", "", f"{result.scores['average']:.2f}", "", style="bold")
    console = Console(markup=False, emoji=False)
    with console.capture() as shown_text:
        console.print(table)
        share = 100 * result.trainable / result.total
        console.print(
            f"{result.trainable:,} of {result.total:,} parameters trained ({share:.2f} %), {result.seconds:.0f} s. "
            f"Adapter: {result.folder / 'adapter'}"
        )
        for line in published:
            console.print(f"Published: {line}")
    return shown_text.get()
