"""A picture of why a few-shot head chose a class: each image beside the cached images that voted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.core.few_shot.explain import Explanation
from weft.eval.errors import ScoreInputError
from weft.eval.rendering.escape import plot_text

_RIGHT, _WRONG = "#0b7a75", "#d1495b"
_INCHES = 1.7


def votes_picture(
    images: Sequence[Any],
    explanations: Sequence[Explanation],
    cached_images: Sequence[Any],
    class_names: Sequence[str],
    path: Path | str,
) -> Path:
    """Draw one row for each image: the image with its class, then the voters, strongest first.

    Above a voter are its class and its vote, below it how near it is in each modality. Voters for the predicted
    class are framed in green, others in red.

    Args:
        images: Classified images, as matplotlib draws them (`PIL.Image`, arrays).
        explanations: What `head.explain` gives for them, with at least one vote each.
        cached_images: The images the head was fitted on, by sample.
        class_names: Names by class.
        path: Where to write; the suffix (`.png`, `.svg`, `.pdf`) decides the format.

    Returns:
        The path.

    Raises:
        ScoreInputError: There is not one explanation per image, or no votes, because the head has no cache.
    """
    if len(images) != len(explanations) or not images:
        raise ScoreInputError(
            f"`explanations` must be one per image ({len(images)}, at least one), but are {len(explanations)}. Explain "
            "the features of these images."
        )
    most = max(len(explanation.votes) for explanation in explanations)
    if most == 0:
        raise ScoreInputError(
            "`explanations` must hold votes, but hold none. Explain a head with a cache, such as tip_adapter."
        )
    from matplotlib.figure import Figure

    names = [plot_text(name) for name in class_names]
    size = (_INCHES * (most + 1), 1.35 * _INCHES * len(images))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(images), most + 1, squeeze=False)
    for row, image, why in zip(grid, images, explanations, strict=True):
        _draw_row(row, image, why, cached_images, names)
    figure.savefig(path, dpi=120)
    return Path(path)


def _draw_row(
    row: Sequence[Any], image: Any, why: Explanation, cached_images: Sequence[Any], names: Sequence[str]
) -> None:
    """Draw an image and its voters into a row of axes."""
    for axes in row:
        axes.set_xticks([])
        axes.set_yticks([])
    row[0].imshow(image)
    row[0].set_title(names[why.predicted], fontsize=8, fontweight="bold")
    row[0].set_xlabel(f"leads {names[why.runner_up]}\nby {why.margin:.2f}", fontsize=7)
    for axes, vote in zip(row[1:], why.votes, strict=False):
        axes.imshow(cached_images[vote.sample])
        axes.set_title(f"{names[vote.label]}: {vote.vote:.3f}", fontsize=8)
        near = "\n".join(f"{word} {value:.2f}" for word, value in vote.affinities.items())
        axes.set_xlabel(near, fontsize=7)
        for spine in axes.spines.values():
            spine.set_color(_RIGHT if vote.label == why.predicted else _WRONG)
            spine.set_linewidth(2)
    for axes in row[1 + len(why.votes) :]:
        axes.set_visible(False)
