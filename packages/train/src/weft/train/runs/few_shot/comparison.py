"""What a few-shot run gave: one table, one plot."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from weft.eval.rendering.escape import csv_text, plot_legend, plot_text
from weft.train.errors import RunError

_MARKERS = "osD^v<>Pp*hX"


@dataclass(frozen=True)
class Cell:
    """One head, fitted on one draw.

    Attributes:
        head: Label of the head.
        shots: Images per class.
        seed: Seed of the draw.
        accuracies: Test set to accuracy in per cent.
        calibration_error: Expected calibration error on the first test set after the temperature, 0 to 1; None
            without validation images.
        selected: Hyper-parameters in use.
        trainable: Trained parameters.
        seconds: Time to fit.
        at_bounds: Hyper-parameters that are the `lowest` or the `highest` of the values compared.
    """

    head: str
    shots: int
    seed: int
    accuracies: dict[str, float]
    calibration_error: float | None
    selected: dict[str, float]
    trainable: int
    seconds: float
    at_bounds: dict[str, str] = field(default_factory=dict)


def together(cells: Mapping[str, Cell]) -> Cell:
    """One cell of one head, number of shots and seed on several data sets, of their cells by data set.

    Its accuracies are those of every data set and `average`, the mean over their first test sets; the calibration error
    is their mean too, the trained parameters the most, the seconds the sum.
    """
    accuracies = {"average": fmean(next(iter(cell.accuracies.values())) for cell in cells.values())}
    for name, cell in cells.items():
        for test, accuracy in cell.accuracies.items():
            accuracies[name if test == "test" else f"{name}, {test}"] = accuracy
    errors = [cell.calibration_error for cell in cells.values() if cell.calibration_error is not None]
    return replace(
        next(iter(cells.values())),
        accuracies=accuracies,
        calibration_error=fmean(errors) if errors else None,
        selected={f"{name}, {key}": v for name, cell in cells.items() for key, v in cell.selected.items()},
        trainable=max(cell.trainable for cell in cells.values()),
        seconds=sum(cell.seconds for cell in cells.values()),
        at_bounds={
            f"{name}, {key}": end for name, cell in cells.items() for key, end in cell.at_bounds.items()
        },
    )


def notes_on_bounds(cells: Sequence[Cell]) -> tuple[str, ...]:
    """A sentence for every hyper-parameter whose chosen value is at an end of its grid in some fits of a run."""
    found = Counter((cell.head, *item) for cell in cells for item in cell.at_bounds.items())
    fits = Counter(cell.head for cell in cells)
    return tuple(
        f"{head}: {name} is the {end} value compared in {count} of {fits[head]} fits, so that a better one may lie "
        "beyond. Widen its grid, or leave the grid out, which then widens itself."
        for (head, name, end), count in found.items()
    )


@dataclass(frozen=True)
class FewShotComparison:
    """All cells of a run.

    Attributes:
        title: What is compared.
        folder: Folder of the run.
        cells: One for each head, number of shots and seed.
        notes: Sentences that belong under the table.
    """

    title: str
    folder: Path
    cells: Sequence[Cell] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def heads(self) -> list[str]:
        """Labels in the order of the recipe."""
        return list(dict.fromkeys(cell.head for cell in self.cells))

    @property
    def shots(self) -> list[int]:
        """Numbers of shots, in order."""
        return sorted({cell.shots for cell in self.cells})

    @property
    def tests(self) -> list[str]:
        """Test sets, in order."""
        return list(dict.fromkeys(test for cell in self.cells for test in cell.accuracies))

    def over_seeds(self, head: str, shots: int, test: str) -> tuple[float, float | None]:
        """Mean and standard deviation (with n - 1) over seeds; None with one seed.

        Raises:
            RunError: There is no such cell.
        """
        values = [c.accuracies[test] for c in self.cells if (c.head, c.shots) == (head, shots)]
        if not values:
            raise RunError(
                f"`head` and `shots` must be of this run, but there is no {head!r} with {shots} shots."
            )
        return fmean(values), stdev(values) if len(values) > 1 else None

    def mean(self, head: str, test: str) -> float:
        """Mean accuracy of a head over shots and seeds."""
        return fmean(cell.accuracies[test] for cell in self.cells if cell.head == head)

    def rows(self, test: str) -> list[list[str]]:
        """The table of one test set, with a header."""
        lines = [["head", *(f"K={shots}" for shots in self.shots), "mean", "trained at most"]]
        for head in self.heads:
            line = [head]
            for shots in self.shots:
                mean, spread = self.over_seeds(head, shots, test)
                line.append(f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}")
            trained = max(cell.trainable for cell in self.cells if cell.head == head)
            lines.append([*line, f"{self.mean(head, test):.2f}", f"{trained:,}"])
        return lines

    def text(self) -> str:
        """The tables of all test sets as plain text."""
        parts = []
        for test in self.tests:
            lines = self.rows(test)
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            parts.append(f"{self.title}: accuracy on {test}, per cent")
            for line in lines:
                first = line[0].ljust(widths[0])
                rest = (word.rjust(width) for word, width in zip(line[1:], widths[1:], strict=True))
                parts.append("  ".join([first, *rest]))
            parts.append("")
        return "\n".join([*parts, *self.notes]).rstrip() + "\n"

    def to_csv(self) -> str:
        """One line for each cell and test set."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["head", "shots", "seed", "test", "accuracy", "calibration_error", "trainable"])
        for cell in self.cells:
            for test, accuracy in cell.accuracies.items():
                # It belongs to the first test set, or to the average.
                known = cell.calibration_error is not None and test == next(iter(cell.accuracies))
                error = f"{cell.calibration_error:.6f}" if known else ""
                row = [cell.head, cell.shots, cell.seed, test, f"{accuracy:.4f}", error, cell.trainable]
                writer.writerow(map(csv_text, row))
        return stream.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `result.json` holds it."""
        cells = [asdict(cell) for cell in self.cells]
        return {"title": self.title, "notes": list(self.notes), "cells": cells}

    def plot(self, path: Path) -> Path:
        """Draw accuracy over shots, a line for each head, whiskers of one standard deviation.

        The suffix of `path` decides the format.
        """
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        colours: Any = colormaps["tab20"]
        tests = self.tests
        columns = min(2, len(tests))
        rows = -(-len(tests) // columns)
        figure = Figure(figsize=(7.0 * columns, 5.0 * rows), layout="constrained")
        for place, test in enumerate(tests, start=1):
            axes = figure.add_subplot(rows, columns, place)
            lines = []
            for number, head in enumerate(self.heads):
                found = [self.over_seeds(head, shots, test) for shots in self.shots]
                line = axes.errorbar(
                    self.shots,
                    [mean for mean, _ in found],
                    yerr=[spread or 0.0 for _, spread in found],
                    marker=_MARKERS[number % len(_MARKERS)],
                    # Its colours come in pairs, dark and light: all dark ones first.
                    color=colours((2 * number + number // 10) % colours.N),
                    capsize=2,
                    linewidth=1.2,
                )
                lines.append(line)
            axes.set_xscale("log", base=2)
            axes.set_xticks(self.shots, [str(shots) for shots in self.shots])
            axes.set_xlabel("images per class")
            axes.set_ylabel("accuracy (%)")
            axes.set_title(plot_text(f"{self.title}, {test}"))
            axes.grid(alpha=0.3)
        plot_legend(figure, lines, self.heads, loc="outside right upper", fontsize="small")
        figure.savefig(path, dpi=120)
        return path
