"""Predictions gathered batch by batch and rank by rank, keyed by id."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from weft.eval.errors import ScoreInputError, shown
from weft.eval.metrics.processes import of_everyone, place
from weft.eval.metrics.report import ScoreReport

Prediction = TypeVar("Prediction")


class MetricState(Generic[Prediction]):
    """Collects predictions by id, so that padding and repeated samples cannot change a score.

    A distributed sampler pads the last batch by repeating samples, and a resumed evaluation may see a batch
    twice. Because the state is a dictionary of ids, the same prediction for the same id counts once; two
    different predictions for one id are refused.

    Args:
        metric: The pure function that scores, called as `metric(predictions, references, **options)`.
        **options: Passed on to `metric` by `compute`.

    Example:
        >>> from weft.eval.metrics import top1_accuracy
        >>> state = MetricState(top1_accuracy)
        >>> state.update(["a", "b"], ["cat", "dog"])
        >>> state.update(["b"], ["dog"])
        >>> state.compute({"a": "cat", "b": "cat"}).value
        50.0
    """

    def __init__(self, metric: Callable[..., ScoreReport], **options: Any) -> None:
        self.metric = metric
        self.options = options
        self._predictions: dict[Hashable, Prediction] = {}

    def __len__(self) -> int:
        return len(self._predictions)

    @property
    def predictions(self) -> Mapping[Any, Prediction]:
        """The gathered predictions by id, in order of first arrival."""
        return dict(self._predictions)

    def update(self, ids: Iterable[Hashable], predictions: Iterable[Prediction]) -> None:
        """Add the predictions of one batch, one per id and in the same order.

        Raises:
            ScoreInputError: The two differ in length, or an id already holds another prediction.
        """
        keys, values = list(ids), list(predictions)
        if len(keys) != len(values):
            raise ScoreInputError(
                f"`predictions` must have one entry per id ({len(keys)}), but has {len(values)}. "
                "Pass the ids of exactly the samples that were predicted."
            )
        self._add(zip(keys, values, strict=True))

    def merge(self, other: MetricState[Prediction]) -> None:
        """Add everything another state of the same metric holds, such as that of another process.

        Raises:
            ScoreInputError: An id holds different predictions in the two states.
        """
        self._add(other._predictions.items())

    def gather(self) -> None:
        """Add what every other process of a `torch.distributed` group holds; alone, do nothing.

        Raises:
            ScoreInputError: An id holds different predictions in two processes.
        """
        if place()[1] == 1:
            return
        for state in of_everyone(self.state_dict()):
            self.update(state["ids"], state["predictions"])

    def state_dict(self) -> dict[str, list[Any]]:
        """Return the ids and predictions as two parallel lists, fit for pickling or gathering."""
        return {"ids": list(self._predictions), "predictions": list(self._predictions.values())}

    def load_state_dict(self, state: Mapping[str, list[Any]]) -> None:
        """Replace the content by what `state_dict` returned.

        Raises:
            ScoreInputError: The two lists differ in length.
        """
        self._predictions = {}
        self.update(state["ids"], state["predictions"])

    def compute(self, references: Mapping[Any, Any], *, subset: bool = False) -> ScoreReport:
        """Score everything gathered so far against `references`, as the metric expects them.

        Raises:
            ScoreInputError: Ids are missing or unknown and `subset` is false.
        """
        return self.metric(self._predictions, references, subset=subset, **self.options)

    def _add(self, pairs: Iterable[tuple[Hashable, Prediction]]) -> None:
        clashes = []
        for key, value in pairs:
            if key in self._predictions and not _same(self._predictions[key], value):
                clashes.append(key)
            else:
                self._predictions[key] = value
        if clashes:
            raise ScoreInputError(
                f"Each id must have one prediction, but {len(clashes)} have two different ones: {shown(clashes)}. "
                "Make generation deterministic or give repeated samples their own ids."
            )


def _same(left: Any, right: Any) -> bool:
    shapes = [getattr(side, "shape", None) for side in (left, right)]
    if shapes == [None, None]:
        return bool(left == right)
    return shapes[0] == shapes[1] and bool((left == right).all())
