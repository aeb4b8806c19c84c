"""Retrieval between images (or videos) and texts, in both directions, with ties counted against the model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.report import PERCENT, RANK, GroupScore, ScoreReport, group_means, mean_of

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
    return retrieval_from_ranks(
        *_ranks(lambda rows: matrix[rows], matrix.shape, texts_of_image, ties),
        variant=f"{ties} ties",
        ks=ks,
        image_ids=image_ids,
        text_ids=text_ids,
        image_groups=image_groups,
        text_groups=text_groups,
    )


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

    Features have the shapes `(images, size)` and `(texts, size)`; similarity is the plain inner product.

    Raises:
        ScoreInputError: Feature sizes differ, features hold NaN, or the positives do not fit.
    """
    images, texts = np.asarray(image_features), np.asarray(text_features)
    shapes = images.shape + texts.shape
    if images.ndim != 2 or texts.ndim != 2 or shapes[1] != shapes[3] or 0 in shapes:
        raise ScoreInputError(
            "`image_features` and `text_features` must have shapes (images, size) and (texts, size), but have "
            f"{images.shape} and {texts.shape}. Project both into one space."
        )
    return retrieval_from_ranks(
        *_ranks(lambda rows: images[rows] @ texts.T, (len(images), len(texts)), texts_of_image, ties),
        variant=f"{ties} ties",
        ks=ks,
        image_ids=image_ids,
        text_ids=text_ids,
        image_groups=image_groups,
        text_groups=text_groups,
    )


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
    """As `retrieval_recall`, from ranks that are known already; `variant` says how they were made.

    `image_ranks` are of each image's best placed text, shape `(images,)`, `text_ranks` of each text's image, shape
    `(texts,)`, both from 1.
    """
    images = _distinct("image", image_ids, len(image_ranks))
    texts = _distinct("text", text_ids, len(text_ranks))
    sides = (("i2t", image_ranks, images, image_groups), ("t2i", text_ranks, texts, text_groups))
    recalls, ranked, least = dict[str, float](), dict[str, float](), min(ks)
    grouped: dict[str, dict[str, GroupScore]] = {}
    for name, ranks, ids, groups in sides:
        recalls |= {f"{name}_R@{k}": 100.0 * float(np.mean(ranks <= k)) for k in ks}
        ranked |= {f"{name}_MedR": float(np.median(ranks)), f"{name}_MeanR": float(np.mean(ranks))}
        means = group_means(groups or {}, _hits(ids, ranks, least))
        grouped |= {f"{axis}: {name}_R@{least}": members for axis, members in means.items()}
    total = sum(recalls.values())
    sums = {"rsum": total, "mean_recall": total / len(recalls)}
    return ScoreReport(
        metric="retrieval_recall",
        variant=variant,
        headline="mean_recall",
        scores=recalls | ranked | sums,
        units=dict.fromkeys(recalls, PERCENT) | dict.fromkeys(ranked, RANK) | dict.fromkeys(sums, PERCENT),
        n=len(image_ranks),
        groups=grouped,
        per_sample=_hits(images, image_ranks, 1),
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


def _check_owners(texts_of_image: Sequence[Sequence[int]], shape: tuple[int, ...]) -> None:
    images, texts = shape
    owned = np.zeros(texts, dtype=bool)
    if len(texts_of_image) != images:
        raise ScoreInputError(
            f"`texts_of_image` must have one entry per image ({images}), but has {len(texts_of_image)}. "
            "List the own texts of every image."
        )
    for image, own in enumerate(texts_of_image):
        columns = np.asarray(own, dtype=np.int64)
        if not columns.size or columns.min() < 0 or columns.max() >= texts or owned[columns].any():
            raise ScoreInputError(
                f"`texts_of_image` must give every image at least one text of its own below {texts}, but image "
                f"{image} has {shown(list(own))}. A text may belong to one image only."
            )
        owned[columns] = True
    if not owned.all():
        raise ScoreInputError(
            f"`texts_of_image` must name the image of every text, but {int((~owned).sum())} texts have none: "
            f"{shown(np.flatnonzero(~owned).tolist())}. Remove these texts from the similarities."
        )


def _ranks(
    similar: Callable[[slice], Array],
    shape: tuple[int, ...],
    texts_of_image: Sequence[Sequence[int]],
    ties: Ties,
) -> tuple[Array, Array]:
    """Rank of the best own text for each image, and of the own image for each text; rows are asked for twice."""
    _check_owners(texts_of_image, shape)
    images, texts = shape
    size = max(1, _CHUNK_ELEMENTS // texts)
    image_ranks = np.empty(images)
    own_scores: Array = np.empty(texts)
    for start in range(0, images, size):
        block = similar(slice(start, start + size))
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
    for start in range(0, images, size):
        block = similar(slice(start, start + size))
        own_row = own_scores.astype(block.dtype)
        above_text += (block > own_row).sum(axis=0)
        tied_text += (block == own_row).sum(axis=0)
    return image_ranks, _rank(above_text, tied_text - 1, ties)


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
    scores = {name: [report.scores[name] for report in reports] for name in reports[0].scores}
    present = {name: [value for value in values if value is not None] for name, values in scores.items()}
    return {name: mean_of(values) for name, values in present.items() if len(values) == len(reports)}
