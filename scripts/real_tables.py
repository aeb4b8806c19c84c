"""Write the tables of docs/real_weights.md, and its plot, from what packages/train/benchmarks/real_weights.py wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "packages" / "train" / "benchmarks" / "results" / "real_weights.json"
PAGE = ROOT / "docs" / "real_weights.md"
PLOT = ROOT / "docs" / "images" / "real_weights.png"
KINDS = ("photo", "gloss", "description")
PAIRS = (
    ("tip_adapter_f", "tip_adapter"),
    ("xmadapter", "tip_adapter"),
    ("xmadapter", "tip_adapter_f"),
    ("xmadapter residual", "tip_adapter_f"),
    ("tip_adapter by loss", "tip_adapter"),
    ("tip_adapter_f", "tip_adapter_f by accuracy"),
    ("xmadapter", "xmadapter by accuracy"),
    ("tip_adapter_f", "tip_adapter_f at 1 and 5.5"),
)

BESIDE = ("zero_shot", "tip_adapter_f")
"""Heads that those stand beside which adapt the encoder."""


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Name of each place of the page to its Markdown."""
    encoders = result["encoders"]
    return {
        "encoders": encoder_table(encoders),
        "heads": "\n\n".join(
            f"`{name}`:\n\n{head_table(found['cells'])}"
            for name, found in encoders.items()
            if has_heads(found)
        ),
        "pairs": "\n\n".join(
            f"`{name}`:\n\n{pair_table(found['cells'])}"
            for name, found in encoders.items()
            if has_heads(found)
        ),
        **{title: few_table(encoders["lite0-linear"], title) for title in ("text_side", "named")},
    }


def has_heads(found: dict[str, Any]) -> bool:
    """Whether heads beside zero-shot ran on an encoder."""
    return len({cell["head"] for cell in found["cells"]}) > 1


def encoder_table(encoders: dict[str, Any]) -> str:
    """Unseen classes and zero-shot accuracy of each encoder."""
    lines = [("encoder", *KINDS, "clothes, zero-shot"), ("---", *["---:"] * (len(KINDS) + 1))]
    for name, found in encoders.items():
        zero = next(cell["accuracy"] for cell in found["cells"] if cell["head"] == "zero_shot")
        shares = (f"{found['unseen'][kind]:.1f}" for kind in KINDS)
        lines.append((f"`{name}`", *shares, f"{zero:.1f}"))
    return markdown(lines)


def head_table(cells: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, by head and images per class."""
    shots = sorted({cell["shots"] for cell in cells})
    heads = list(dict.fromkeys(cell["head"] for cell in cells))
    lines = [("head", *(f"K={k}" for k in shots)), ("---", *["---:"] * len(shots))]
    for head in heads:
        values = (
            [cell["accuracy"] for cell in cells if (cell["head"], cell["shots"]) == (head, k)] for k in shots
        )
        lines.append((f"`{head}`", *(f"{fmean(each):.1f} ± {stdev(each):.1f}" for each in values)))
    return markdown(lines)


def few_table(found: dict[str, Any], title: str) -> str:
    """What was measured on few draws beside the same draws of the table of heads.

    Args:
        found: What was measured with an encoder.
        title: `text_side`, whose heads stand beside others, or `named`, whose heads stand beside themselves.
    """
    own = found[title]
    places = {(cell["shots"], cell["seed"]) for cell in own}
    beside = [cell for cell in found["cells"] if (cell["shots"], cell["seed"]) in places]
    heads = list(dict.fromkeys(cell["head"] for cell in own))
    if title == "named":
        lines = [("head", "names of the recipe", "long-sleeve shirt, t-shirt"), ("---", "---:", "---:")]
        lines += [(f"`{head}`", over_draws(beside, head), over_draws(own, head)) for head in heads]
        return markdown(lines)
    lines = [
        ("head", *(f"draw {seed}" for _, seed in sorted(places)), "mean"),
        ("---", *["---:"] * (len(places) + 1)),
    ]
    for head in (*BESIDE, *heads):
        at = {
            (cell["shots"], cell["seed"]): cell["accuracy"] for cell in beside + own if cell["head"] == head
        }
        lines.append(
            (f"`{head}`", *(f"{at[place]:.1f}" for place in sorted(places)), over_draws(beside + own, head))
        )
    return markdown(lines)


def over_draws(cells: list[dict[str, Any]], head: str) -> str:
    """Mean and standard deviation of a head over draws."""
    values = [cell["accuracy"] for cell in cells if cell["head"] == head]
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


def pair_table(cells: list[dict[str, Any]]) -> str:
    """Differences over the same draws, with the standard error and the p-value of all flips of their signs."""
    at = {(cell["head"], cell["shots"], cell["seed"]): cell["accuracy"] for cell in cells}
    shots, seeds = (sorted({key[place] for key in at}) for place in (1, 2))
    columns = [*(f"K={k}" for k in shots), *(["mean over K"] if len(shots) > 1 else [])]
    lines = [("heads", *columns), ("---", *["---:"] * len(columns))]
    for one, other in PAIRS:
        if (one, shots[0], seeds[0]) not in at or (other, shots[0], seeds[0]) not in at:
            continue
        by_shots = [[at[one, k, seed] - at[other, k, seed] for seed in seeds] for k in shots]
        over = [fmean(each) for each in zip(*by_shots, strict=True)]
        shown = [*by_shots, over] if len(shots) > 1 else by_shots
        lines.append((f"`{one}` - `{other}`", *map(difference, shown)))
    return markdown(lines)


def difference(values: list[float]) -> str:
    """Mean, standard error and p-value of paired differences."""
    share = sign_flips(values)
    shown = "p < 0.001" if share < 0.001 else f"p = {share:.3f}"
    return f"{fmean(values):+.2f} ± {stdev(values) / len(values) ** 0.5:.2f} ({shown})"


def sign_flips(values: list[float]) -> float:
    """Share of all choices of signs whose mean lies as far from 0, two-sided and exact.

    >>> sign_flips([1.0, 1.0, 1.0])
    0.25
    """
    seen = abs(sum(values)) - 1e-9
    sums = [0.0]
    for value in values:
        sums = [total + sign * value for total, sign in product(sums, (1, -1))]
    return sum(abs(total) >= seen for total in sums) / len(sums)


def markdown(lines: list[tuple[str, ...]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(cells: list[dict[str, Any]]) -> None:
    """Draw accuracy over images per class, with whiskers of the standard error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shots = sorted({cell["shots"] for cell in cells})
    for number, head in enumerate(dict.fromkeys(cell["head"] for cell in cells)):
        values = [
            [cell["accuracy"] for cell in cells if (cell["head"], cell["shots"]) == (head, k)] for k in shots
        ]
        axes.errorbar(
            [k * 1.03 ** (number - 4) for k in shots],  # side by side
            [fmean(each) for each in values],
            yerr=[stdev(each) / len(each) ** 0.5 for each in values],
            linestyle="--" if " by " in head else ":" if " at " in head else "-",
            marker="o",
            markersize=4,
            color=f"C{[*'ztfx'].index(kind(head))}" if "residual" not in head else "C4",
            capsize=2,
            label=head,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.set(xlabel="images per class", ylabel="accuracy on 372 photos of clothes (%)")
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(PLOT, dpi=120)


def kind(head: str) -> str:
    """One letter for each method: zero-shot, Tip-Adapter, Tip-Adapter-F, XMAdapter."""
    if head.startswith("tip_adapter_f"):
        return "f"
    return head[0]


def with_tables(page: str, result: dict[str, Any]) -> str:
    """The page with the tables of a result.

    Args:
        page: The page, in which comments say where the tables are.
        result: What the benchmark wrote.
    """
    return placed(page, tables(result))


def placed(page: str, tables: Mapping[str, str]) -> str:
    """The page with tables in their places.

    Args:
        page: The page.
        tables: Name of each place to its Markdown.
    """
    for name, table in tables.items():
        place = re.compile(rf"(?<=<!-- {name}: begin -->\n).*(?=<!-- {name}: end -->)", re.DOTALL)
        page = place.sub(lambda _, table=table: f"\n{table}\n\n", page)
    return page


def main() -> None:
    """Write both."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    plot(result["encoders"]["lite0-linear"]["cells"])


if __name__ == "__main__":
    main()
