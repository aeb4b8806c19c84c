"""A table of predictions beside what was asked and what was right, with pictures of some."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from weft.data import MediaRef
from weft.data.media.images import decode_image, to_rgb
from weft.data.processes.atomic import write_text
from weft.data.sources.safe_paths import leads_to
from weft.data.sources.texts import lines_of, parse_json
from weft.eval.errors import FormatError, ScoreInputError
from weft.eval.metrics.report import PERCENT, ScoreReport

SUFFIX = ".table.jsonl"
_PICTURES = "pictures"
_SIDE = 224


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One prediction.

    Attributes:
        id: Id of the sample.
        prediction: What the model said.
        references: What is right, most usual first.
        score: Score of the sample, in the unit of the table.
        question: What was asked, empty for captions.
        groups: Axis to the group this sample belongs to.
        pictures: Files with small pictures, relative to the folder of the table; empty where none was kept.
        media: Digest of which pictures or videos were shown; empty where it is not known.
    """

    id: str
    prediction: str
    references: tuple[str, ...]
    score: float
    question: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    media: str = ""


@dataclass(frozen=True, slots=True)
class PredictionTable:
    """All predictions of one task.

    Attributes:
        task: Name of the task.
        metric: Name and variant of the metric that gave the scores.
        best: The best possible score of a sample, such as 100 for accuracies.
        rows: The predictions.
        folder: Where pictures are, or `None` for a table without.
    """

    task: str
    metric: str
    best: float
    rows: tuple[PredictionRow, ...]
    folder: Path | None = None

    def save(self, folder: Path | str) -> Path:
        """Write the table as JSON lines, the first of which describes it, into the folder of its pictures."""
        target = Path(folder) / f"{self.task}{SUFFIX}"
        head = {"task": self.task, "metric": self.metric, "best": self.best, "rows": len(self.rows)}
        lines = [json.dumps(head), *(json.dumps(asdict(row), ensure_ascii=False) for row in self.rows)]
        write_text(target, "\n".join(lines) + "\n")
        return target

    @classmethod
    def load(cls, path: Path | str) -> PredictionTable:
        """Read a file that `save` wrote.

        Raises:
            FormatError: The file is no table, was cut short, or names pictures outside of its folder.
        """
        source = Path(path)
        try:
            head, *lines = lines_of(source.read_text(encoding="utf-8"))
            about, rows = parse_json(head), [parse_json(line) for line in lines]
            count, task, metric, best = about["rows"], about["task"], about["metric"], float(about["best"])
            made = tuple(_row(row) for row in rows)
            if not isinstance(task, str) or not isinstance(metric, str):
                raise TypeError("task and metric must be texts")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError(
                f"{str(source)!r} must be a table of predictions, but does not read: {error}. Evaluate again."
            ) from error
        if count != len(rows):
            raise FormatError(
                f"{str(source)!r} must hold {count} predictions, but holds {len(rows)}. Evaluate again."
            )
        for name in dict.fromkeys(name for row in made for name in row.pictures):
            require_inside(source.parent / name, source.parent, f"A picture of {source}")
        return cls(task, metric, best, made, source.parent)


def require_inside(path: Path, folder: Path, what: str) -> None:
    """Refuse a path of a run's folder that leads out of it; what is elsewhere would be shown, or sent on.

    Args:
        path: The path; links are followed.
        folder: The folder.
        what: The path's name in the message.

    Raises:
        FormatError: If it leads out.
    """
    place = leads_to(path)
    if place is None or not place.is_relative_to(folder.resolve()):
        raise FormatError(
            f"{what} must lie in {folder}, but leads to {place or repr(str(path))}. The folder was not written by "
            "weft alone: do not trust it."
        )


def _row(values: Any) -> PredictionRow:
    """One line of a table."""
    references, pictures = tuple(values["references"]), tuple(values["pictures"])
    row = PredictionRow(**{**values, "references": references, "pictures": pictures})
    texts = [row.id, row.prediction, row.question, row.media, *references, *pictures]
    texts += [*row.groups, *row.groups.values()]
    if not references or not all(isinstance(text, str) for text in texts):
        raise TypeError("a row must hold texts, and a reference")
    if not isinstance(row.score, int | float):
        raise TypeError("a score must be a number")
    return row


def prediction_table(
    task: str,
    predictions: Mapping[Any, str],
    references: Mapping[Any, Sequence[str]],
    report: ScoreReport,
    *,
    questions: Mapping[Any, str] | None = None,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
    images: Mapping[Any, Sequence[Any]] | None = None,
    media: Mapping[Any, str] | None = None,
    folder: Path | str | None = None,
    pictures: int = 60,
) -> PredictionTable:
    """Put predictions, references, scores and pictures of one task together.

    Args:
        task: Name of the task.
        predictions: Sample id to prediction.
        references: Sample id to right answers.
        report: The report of the same predictions.
        questions: Sample id to what was asked.
        groups: Axis to sample id to group.
        images: Sample id to its images: encoded bytes, `PIL.Image.Image`s, or anything with a method
            `image()` that returns one. A `MediaRef` of weft.data whose file is absent is left out.
        media: Sample id to a digest of which pictures or videos were shown.
        folder: Where pictures are written; without it none is.
        pictures: For how many samples pictures are kept: half of them the worst, half spread over the rest.

    Returns:
        The table; `save` it into the same folder.

    Raises:
        ScoreInputError: A scored sample has no prediction or no reference.
    """
    lost = [key for key in report.per_sample if key not in predictions or not references.get(key)]
    if lost:
        raise ScoreInputError(
            f"`predictions` and `references` must hold every scored sample, but {len(lost)} are missing, "
            f"such as {lost[0]!r}. Pass those the report was made from."
        )
    where = Path(folder) if folder is not None else None
    files = {} if where is None or images is None else _kept_pictures(task, report, images, where, pictures)
    rows = [
        PredictionRow(
            id=str(key),
            prediction=str(predictions[key]),
            references=_most_usual_first(references[key]),
            score=score,
            question=(questions or {}).get(key, ""),
            groups={axis: members[key] for axis, members in (groups or {}).items() if key in members},
            pictures=files.get(key, ()),
            media=(media or {}).get(key, ""),
        )
        for key, score in report.per_sample.items()
    ]
    # Samples of captions are scored by CIDEr-D whatever the report shows first; its best is 10.
    best = 10.0 if "CIDEr" in report.scores else 100.0 if report.units[report.headline] == PERCENT else 1.0
    return PredictionTable(task, f"{report.metric} ({report.variant})", best, tuple(rows), where)


def _most_usual_first(references: Sequence[str]) -> tuple[str, ...]:
    given = [references] if isinstance(references, str) else list(references)
    return tuple(sorted(dict.fromkeys(given), key=lambda text: -given.count(text)))


def _kept_pictures(
    task: str, report: ScoreReport, images: Mapping[Any, Sequence[Any]], folder: Path, count: int
) -> dict[Hashable, tuple[str, ...]]:
    """Sample id to the files of its pictures, for the samples whose pictures are kept."""
    ranked = sorted(report.per_sample, key=lambda key: report.per_sample[key])
    worst, rest = ranked[: count // 2], ranked[count // 2 :]
    step = max(1, len(rest) // max(1, count - len(worst)))
    kept = {*worst, *rest[::step][: count - len(worst)]}
    return {
        key: _save_pictures(folder, f"{task}-{place}", images.get(key, ()))
        for place, key in enumerate(report.per_sample)
        if key in kept
    }


def _save_pictures(folder: Path, stem: str, images: Sequence[Any]) -> tuple[str, ...]:
    from PIL import Image

    (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
    names = []
    for place, given in enumerate(images):
        if isinstance(given, MediaRef) and not given.exists():
            # Runs on stored features need no images beside them.
            continue
        image = decode_image(given, name=f"picture {place} of {stem}") if isinstance(given, bytes) else given
        image = to_rgb(image if isinstance(image, Image.Image) else image.image())
        image.thumbnail((_SIDE, _SIDE))
        name = f"{_PICTURES}/{stem}-{place}.png"
        image.save(folder / name, optimize=True)
        names.append(name)
    return tuple(names)
