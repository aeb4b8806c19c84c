"""Retrieval between images (or videos) and texts, in both directions, with ties counted against the model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.report import PERCENT, RANK, ScoreReport, group_means

Array = npt.NDArray[Any]
Ties = Literal["pessimistic", "expected"]
Groups = Mapping[str, Mapping[Any, str]]

_CHUNK_ELEMENTS = 8_000_000


def retrieval_recall(
    similarity: Array,
    texts_of_image: Sequence[Sequence[int]],
    *,
    ks: Sequence[int] = (1, 5, 10),
    ties: Ties = "pessimistic",
    image_ids: Sequence[Hashable] | None = None,
    text_ids: Sequence[Hashable] | None = None,
    image_groups: Groups | None = None,
    text_groups: Groups | None = None,
) -> ScoreReport:
    """Recall at K, median and mean rank from a matrix of similarities.

    Args:
        similarity: Shape `(images, texts)`, larger is more alike.
        texts_of_image: For each image the columns of its own texts; each text belongs to exactly one image.
            From image to text the best placed of them counts.
        ks: The cut-offs.
        ties: `"pessimistic"` ranks an item behind all wrong items of equal score, so that constant scores
            earn nothing; `"expected"` takes the middle of the tie, the mean over random orders.
        image_ids: Ids for the per-sample ranks; by default the row numbers.
        text_ids: Ids of the texts, for `text_groups`; by default the column numbers.
        image_groups: Axis (such as `"length"`) to image id to group name.
        text_groups: Axis to text id to group name.

    Returns:
        Report with `i2t_R@K` and `t2i_R@K` in percent, `i2t_MedR`, `t2i_MedR` (the usual median),
        `i2t_MeanR`, `t2i_MeanR` as ranks from 1, and `rsum` (sum of all recalls) and `mean_recall` (their
        mean, the headline). The groups of an axis `a` are `a: i2t_R@K` and `a: t2i_R@K` with the least K,
        each ranked among all candidates. Per-sample scores are 100 where the image finds a text of its own
        at rank 1, else 0.

    Raises:
        ScoreInputError: The matrix is empty, not two-dimensional or holds NaN, or the positives do not fit
            it.

    Example:
        >>> import numpy as np
        >>> own = [[0], [1], [2], [3]]
        >>> retrieval_recall(np.eye(4), own).scores["i2t_R@1"]
        100.0
        >>> retrieval_recall(np.ones((4, 4)), own).scores["i2t_R@1"]
        0.0
    """
    matrix = np.asarray(similarity)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ScoreInputError(
            f"`similarity` must have shape (images, texts) without empty sides, but has shape {matrix.shape}. "
            "Stack one row per image."
        )
    rows = max(1, _CHUNK_ELEMENTS // matrix.shape[1])

    labels = _Labels(image_ids, text_ids, image_groups or {}, text_groups or {})

    def blocks() -> Iterator[tuple[int, Array]]:
        for start in range(0, matrix.shape[0], rows):
            yield start, matrix[start : start + rows]

    return _report(blocks, matrix.shape, texts_of_image, ks, ties, labels)


def retrieval_from_features(
    image_features: Array,
    text_features: Array,
    texts_of_image: Sequence[Sequence[int]],
    *,
    ks: Sequence[int] = (1, 5, 10),
    ties: Ties = "pessimistic",
    image_ids: Sequence[Hashable] | None = None,
    text_ids: Sequence[Hashable] | None = None,
    image_groups: Groups | None = None,
    text_groups: Groups | None = None,
) -> ScoreReport:
    """As `retrieval_recall`, from features, without ever holding the whole matrix.

    Args:
        image_features: Shape `(images, size)`; similarity is the plain inner product.
        text_features: Shape `(texts, size)`.
        texts_of_image: For each image the rows of its own texts.
        ks: The cut-offs.
        ties: How equal scores are ranked.
        image_ids: Ids for the per-sample ranks.
        text_ids: Ids of the texts, for `text_groups`.
        image_groups: Axis to image id to group name.
        text_groups: Axis to text id to group name.

    Returns:
        The same report.

    Raises:
        ScoreInputError: Feature sizes differ, features hold NaN, or the positives do not fit.
    """
    images, texts = np.asarray(image_features), np.asarray(text_features)
    if (
        images.ndim != 2
        or texts.ndim != 2
        or images.shape[1] != texts.shape[1]
        or 0 in images.shape + texts.shape
    ):
        raise ScoreInputError(
            "`image_features` and `text_features` must have shapes (images, size) and (texts, size), but have "
            f"{images.shape} and {texts.shape}. Project both into one space."
        )
    rows = max(1, _CHUNK_ELEMENTS // texts.shape[0])

    labels = _Labels(image_ids, text_ids, image_groups or {}, text_groups or {})

    def blocks() -> Iterator[tuple[int, Array]]:
        for start in range(0, images.shape[0], rows):
            yield start, images[start : start + rows] @ texts.T

    return _report(blocks, (images.shape[0], texts.shape[0]), texts_of_image, ks, ties, labels)


class _Labels(NamedTuple):
    image_ids: Sequence[Hashable] | None
    text_ids: Sequence[Hashable] | None
    image_groups: Groups
    text_groups: Groups


def _report(
    blocks: Callable[[], Iterator[tuple[int, Array]]],
    shape: tuple[int, ...],
    texts_of_image: Sequence[Sequence[int]],
    ks: Sequence[int],
    ties: Ties,
    labels: _Labels,
) -> ScoreReport:
    image_of_text = _owners(texts_of_image, shape)
    image_ranks, text_ranks = _ranks(blocks, shape, texts_of_image, image_of_text, ties)
    return _summary(image_ranks, text_ranks, ks, f"{ties} ties", labels)


def retrieval_from_ranks(
    image_ranks: Array,
    text_ranks: Array,
    *,
    variant: str,
    ks: Sequence[int] = (1, 5, 10),
    image_ids: Sequence[Hashable] | None = None,
    text_ids: Sequence[Hashable] | None = None,
    image_groups: Groups | None = None,
    text_groups: Groups | None = None,
) -> ScoreReport:
    """As `retrieval_recall`, from ranks that are known already.

    Args:
        image_ranks: Rank from 1 of each image's best placed text, shape `(images,)`.
        text_ranks: Rank of each text's image, shape `(texts,)`.
        variant: How they were made, for the report.
        ks: The cut-offs.
        image_ids: Ids for the per-sample ranks.
        text_ids: Ids of the texts, for `text_groups`.
        image_groups: Axis to image id to group name.
        text_groups: Axis to text id to group name.

    Returns:
        The same report.
    """
    labels = _Labels(image_ids, text_ids, image_groups or {}, text_groups or {})
    return _summary(image_ranks, text_ranks, ks, variant, labels)


def _summary(
    image_ranks: Array, text_ranks: Array, ks: Sequence[int], variant: str, labels: _Labels
) -> ScoreReport:
    ids = {
        "i2t": _distinct("image", labels.image_ids, len(image_ranks)),
        "t2i": _distinct("text", labels.text_ids, len(text_ranks)),
    }
    least = min(ks)
    scores: dict[str, float | None] = {}
    for name, ranks in (("i2t", image_ranks), ("t2i", text_ranks)):
        scores |= {f"{name}_R@{k}": 100.0 * float(np.mean(ranks <= k)) for k in ks}
    recalls = [value for value in scores.values() if value is not None]
    units = dict.fromkeys(scores, PERCENT)
    for name, ranks in (("i2t", image_ranks), ("t2i", text_ranks)):
        scores |= {f"{name}_MedR": float(np.median(ranks)), f"{name}_MeanR": float(np.mean(ranks))}
    units |= dict.fromkeys((name for name in scores if name not in units), RANK)
    scores |= {"rsum": sum(recalls), "mean_recall": sum(recalls) / len(recalls)}
    return ScoreReport(
        metric="retrieval_recall",
        variant=variant,
        headline="mean_recall",
        scores=scores,
        units=units | {"rsum": PERCENT, "mean_recall": PERCENT},
        n=len(image_ranks),
        groups={
            f"{axis}: {name}_R@{least}": members
            for name, ranks, groups in (
                ("i2t", image_ranks, labels.image_groups),
                ("t2i", text_ranks, labels.text_groups),
            )
            for axis, members in group_means(groups, _hits(ids[name], ranks, least)).items()
        },
        per_sample=_hits(ids["i2t"], image_ranks, 1),
    )


def _hits(ids: Sequence[Hashable], ranks: Array, k: int) -> dict[Hashable, float]:
    return dict(zip(ids, (100.0 * (ranks <= k)).tolist(), strict=True))


def _distinct(side: str, ids: Sequence[Hashable] | None, count: int) -> Sequence[Hashable]:
    given = range(count) if ids is None else ids
    if len(given) != count or len(set(given)) != count:
        raise ScoreInputError(
            f"`{side}_ids` must hold {count} distinct ids, one per {side}, but holds {len(set(given))} "
            f"distinct of {len(given)}. Give one id per row."
        )
    return given


def _owners(texts_of_image: Sequence[Sequence[int]], shape: tuple[int, ...]) -> Array:
    images, texts = shape
    owners = np.full(texts, -1, dtype=np.int64)
    if len(texts_of_image) != images:
        raise ScoreInputError(
            f"`texts_of_image` must have one entry per image ({images}), but has {len(texts_of_image)}. "
            "List the own texts of every image."
        )
    for image, own in enumerate(texts_of_image):
        columns = np.asarray(own, dtype=np.int64)
        if not columns.size or columns.min() < 0 or columns.max() >= texts or (owners[columns] >= 0).any():
            raise ScoreInputError(
                f"`texts_of_image` must give every image at least one text of its own below {texts}, but image "
                f"{image} has {shown(list(own))}. A text may belong to one image only."
            )
        owners[columns] = image
    if (owners < 0).any():
        raise ScoreInputError(
            f"`texts_of_image` must name the image of every text, but {int((owners < 0).sum())} texts have none: "
            f"{shown(np.flatnonzero(owners < 0).tolist())}. Remove these texts from the similarities."
        )
    return owners


def _ranks(
    blocks: Callable[[], Iterator[tuple[int, Array]]],
    shape: tuple[int, ...],
    texts_of_image: Sequence[Sequence[int]],
    image_of_text: Array,
    ties: Ties,
) -> tuple[Array, Array]:
    """Rank of the best own text for each image, and of the own image for each text; rows come twice."""
    images, texts = shape
    image_ranks = np.empty(images)
    own_scores: Array = np.empty(texts)
    for start, block in blocks():
        if np.isnan(block).any():
            raise ScoreInputError(
                f"`similarity` must not hold NaN, but rows from {start} do ({int(np.isnan(block).sum())} values). "
                "Look for a diverged model or an empty feature."
            )
        for offset, row in enumerate(block):
            own = np.asarray(texts_of_image[start + offset], dtype=np.int64)
            own_scores[own] = row[own]
            best = row[own].max()
            tied_wrong = int((row == best).sum()) - int((row[own] == best).sum())
            above = int((row > best).sum())
            image_ranks[start + offset] = _rank(above, tied_wrong, ties)
    above_text, tied_text = np.zeros(texts, dtype=np.int64), np.zeros(texts, dtype=np.int64)
    for _, block in blocks():
        own_row = own_scores.astype(block.dtype)
        above_text += (block > own_row).sum(axis=0)
        tied_text += (block == own_row).sum(axis=0)
    tied_text -= 1
    return image_ranks, _rank(above_text, tied_text, ties)


def _rank(above: Any, tied: Any, ties: Ties) -> Any:
    return 1 + above + (tied if ties == "pessimistic" else tied / 2)


def mean_over_folds(reports: Sequence[ScoreReport]) -> Mapping[str, float]:
    """Average the scores of several folds, as the COCO 1k protocol does with five.

    Args:
        reports: At least one report, all of the same metric.

    Returns:
        Score name to mean over the folds, without the scores that are `None` in a fold.

    Raises:
        ScoreInputError: There is no report.
    """
    if not reports:
        raise ScoreInputError("`reports` must hold at least one fold, but is empty. Score the folds first.")
    means: dict[str, float] = {}
    for name in reports[0].scores:
        values = [report.scores[name] for report in reports]
        present = [value for value in values if value is not None]
        if len(present) == len(values):
            means[name] = sum(present) / len(present)
    return means
